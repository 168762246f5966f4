def test_layout_changes_around_elementwise_ops_cancel(rewrites):
    rewrites("""graph @f<B in 1..4>(%x: f32[B,2,3,4]) -> f32[B,2,3,4] {
      %0: f32[B,3,4,2] = transpose(%x) {perm=(0, 2, 3, 1)}
      %c: f32[2] = const [1.0, 2.0]
      %1: f32[B,3,4,2] = add(%0, %c)
      %2: f32[B,3,4,2] = relu(%1)
      %3: f32[B,2,3,4] = transpose(%2) {perm=(0, 3, 1, 2)}
      return %3
    }""", "sink-views", """graph @f<B in 1..4>(%x: f32[B,2,3,4]) -> f32[B,2,3,4] {
      %c: f32[1,2,1,1] = const [[[[1.0]], [[2.0]]]]
      %0: f32[B,2,3,4] = add(%x, %c)
      %1: f32[B,2,3,4] = relu(%0)
      return %1
    }""")


def test_a_mean_moves_its_axes(rewrites):
    rewrites("""graph @f<B in 1..4>(%x: f32[B,2,3]) -> f32[B,2] {
      %0: f32[3,B,2] = transpose(%x) {perm=(2, 0, 1)}
      %1: f32[B,2] = mean(%0) {axes=(0,)}
      return %1
    }""", "sink-views", """graph @f<B in 1..4>(%x: f32[B,2,3]) -> f32[B,2] {
      %0: f32[B,2] = mean(%x) {axes=(2,)}
      return %0
    }""")
