def test_views_and_arithmetic_cancel(rewrites):
    rewrites("""graph @f<B in 1..4>(%x: f32[B,2,3]) -> f32[B,2,3] {
      %0: f32[B,3,2] = transpose(%x) {perm=(0, 2, 1)}
      %1: f32[B,6] = reshape(%0) {shape=(B, 6)}
      %2: f32[B,3,2] = reshape(%1) {shape=(B, 3, 2)}
      %one: f32[] = const 1.0
      %3: f32[B,3,2] = mul(%2, %one)
      %4: f32[B,2,3] = transpose(%3) {perm=(0, 2, 1)}
      %5: f32[B,2,3] = neg(%4)
      %6: f32[B,2,3] = neg(%5)
      return %6
    }""", "simplify", """graph @f<B in 1..4>(%x: f32[B,2,3]) -> f32[B,2,3] {
      return %x
    }""")


def test_zero_keeps_its_sign(keeps):
    keeps("""graph @f(%x: f32[2]) -> f32[2] {
      %zero: f32[] = const 0.0
      %0: f32[2] = add(%x, %zero)
      return %0
    }""", "simplify")


def test_integers_have_one_zero(rewrites):
    rewrites("""graph @f(%x: i32[2]) -> i32[2] {
      %zero: i32[] = const 0
      %0: i32[2] = add(%x, %zero)
      return %0
    }""", "simplify", "graph @f(%x: i32[2]) -> i32[2] { return %x }")


def test_a_transpose_goes_into_the_matmul(rewrites):
    rewrites("""graph @f(%q: f32[2,3,4], %k: f32[2,5,4]) -> f32[2,3,5] {
      %0: f32[2,4,5] = transpose(%k) {perm=(0, 2, 1)}
      %1: f32[2,3,5] = matmul(%q, %0)
      return %1
    }""", "simplify", """graph @f(%q: f32[2,3,4], %k: f32[2,5,4]) -> f32[2,3,5] {
      %0: f32[2,3,5] = matmul(%q, %k) {transpose_b=true}
      return %0
    }""")


def test_casts_that_lose_nothing(rewrites, keeps):
    rewrites("""graph @f(%x: i8[2]) -> i64[2] {
      %0: i32[2] = cast(%x) {to=i32}
      %1: i64[2] = cast(%0) {to=i64}
      return %1
    }""", "simplify", """graph @f(%x: i8[2]) -> i64[2] {
      %0: i64[2] = cast(%x) {to=i64}
      return %0
    }""")
    keeps("""graph @f(%x: f32[2]) -> f32[2] {
      %0: f16[2] = cast(%x) {to=f16}
      %1: f32[2] = cast(%0) {to=f32}
      return %1
    }""", "simplify")


def test_split_then_concat_is_nothing(rewrites):
    rewrites("""graph @f(%x: f32[6,2]) -> f32[6,2] {
      %0: f32[2,2] = slice(%x) {starts=(0, 0), stops=(2, 2), steps=(1, 1)}
      %1: f32[3,2] = slice(%x) {starts=(2, 0), stops=(5, 2), steps=(1, 1)}
      %2: f32[1,2] = slice(%x) {starts=(5, 0), stops=(6, 2), steps=(1, 1)}
      %3: f32[6,2] = concat(%0, %1, %2) {axis=0}
      return %3
    }""", "simplify", "graph @f(%x: f32[6,2]) -> f32[6,2] { return %x }")


def test_padding_goes_into_the_convolution(rewrites):
    rewrites("""graph @f(%x: f32[1,2,4,4], %w: f32[3,2,3,3]) -> f32[1,3,2,2] {
      %0: f32[1,2,5,5] = pad(%x) {pads=(0, 0, 0, 0, 0, 0, 1, 1)}
      %1: f32[1,3,2,2] = conv(%0, %w) {strides=(2, 2), pads=(0, 0, 0, 0), dilations=(1, 1)}
      return %1
    }""", "simplify", """graph @f(%x: f32[1,2,4,4], %w: f32[3,2,3,3]) -> f32[1,3,2,2] {
      %0: f32[1,3,2,2] = conv(%x, %w) {strides=(2, 2), pads=(0, 0, 1, 1), dilations=(1, 1)}
      return %0
    }""")


def test_a_known_branch_is_taken(rewrites):
    rewrites("""graph @f(%x: f32[2]) -> f32[2] {
      %c: bool[] = const true
      %0: f32[2] = if(%c, %x) {
        then=graph @a(%v: f32[2]) -> f32[2] { %0: f32[2] = exp(%v) return %0 },
        orelse=graph @b(%v: f32[2]) -> f32[2] { return %v }}
      return %0
    }""", "simplify", """graph @f(%x: f32[2]) -> f32[2] {
      %0: f32[2] = exp(%x)
      return %0
    }""")
