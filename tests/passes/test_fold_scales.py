import pytest


def test_batch_norm_goes_into_the_convolution(rewrites):
    rewrites("""graph @f<B in 1..4>(%x: f32[B,1,3,3]) -> f32[B,2,3,3] {
      %w: f32[2,1,1,1] = const [[[[1.0]]], [[[2.0]]]]
      %c: f32[2] = const [0.5, 1.0]
      %0: f32[B,2,3,3] = conv(%x, %w, %c) {strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)}
      %scale: f32[2] = const [2.0, 4.0]
      %bias: f32[2] = const [1.0, 2.0]
      %mean: f32[2] = const [0.0, 1.0]
      %var: f32[2] = const [3.0, 15.0]
      %1: f32[B,2,3,3] = batch_norm(%0, %scale, %bias, %mean, %var) {eps=1.0}
      return %1
    }""", "fold-scales", """graph @f<B in 1..4>(%x: f32[B,1,3,3]) -> f32[B,2,3,3] {
      %w: f32[2,1,1,1] = const [[[[1.0]]], [[[2.0]]]]
      %c: f32[2] = const [1.5, 2.0]
      %0: f32[B,2,3,3] = conv(%x, %w, %c) {strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)}
      return %0
    }""")


def test_a_scale_along_rows_stays(keeps):
    keeps("""graph @f(%x: f32[2,2]) -> f32[2,2] {
      %w: f32[2,2] = const [[1.0, 2.0], [3.0, 4.0]]
      %0: f32[2,2] = matmul(%x, %w)
      %c: f32[2,1] = const [[1.0], [2.0]]
      %1: f32[2,2] = mul(%0, %c)
      return %1
    }""", "fold-scales")


def test_scales_on_both_sides_of_a_matmul(rewrites):
    rewrites("""graph @f(%x: f32[3,2]) -> f32[3,2] {
      %a: f32[2] = const [2.0, 4.0]
      %0: f32[3,2] = mul(%x, %a)
      %w: f32[2,2] = const [[1.0, 2.0], [3.0, 4.0]]
      %1: f32[3,2] = matmul(%0, %w)
      %c: f32[2] = const [1.0, 0.5]
      %2: f32[3,2] = div(%1, %c)
      return %2
    }""", "fold-scales", """graph @f(%x: f32[3,2]) -> f32[3,2] {
      %w: f32[2,2] = const [[2.0, 8.0], [12.0, 32.0]]
      %0: f32[3,2] = matmul(%x, %w)
      return %0
    }""")


@pytest.mark.parametrize("decides", ["cast(%2) {to=i32}", "cast(%3) {to=i32}"])
def test_a_quotient_that_is_made_an_integer_stays_exact(keeps, decides):
    """49 * (1/49) is no 1: torch.linspace(50, 1, 50, dtype=torch.int32) had steps of less than 1."""
    keeps(f"""graph @f(%x: f64[3], %y: f64[3]) -> i32[3] {{
      %c: f64[] = const 49.0
      %0: f64[3] = div(%x, %c)
      %1: f64[3] = mul(%0, %y)
      %2: f64[3] = sub(%y, %1)
      %3: f64[3] = floor(%2)
      %4: i32[3] = {decides}
      return %4
    }}""".replace("%3: f64[3] = floor(%2)\n" if "%2" in decides else "\n\n", ""), "fold-scales")


def test_the_last_bit_of_what_is_rounded_anyway_decides_nothing(rewrites):
    rewrites("""graph @f(%x: f32[3]) -> i32[3] {
      %c: f32[] = const 49.0
      %0: f32[3] = div(%x, %c)
      %1: f32[3] = exp(%0)
      %2: i32[3] = cast(%1) {to=i32}
      return %2
    }""", "fold-scales", """graph @f(%x: f32[3]) -> i32[3] {
      %c: f32[] = const 0.0204081628
      %0: f32[3] = mul(%x, %c)
      %1: f32[3] = exp(%0)
      %2: i32[3] = cast(%1) {to=i32}
      return %2
    }""")
