def test_dead_ops_go_in_nested_graphs_too(rewrites):
    rewrites("""graph @f(%x: f32[2]) -> f32[2] {
      %a: f32[2] = exp(%x)
      %b: f32[2] = neg(%a)
      %c: f32[2] = fused(%x) {body=graph @g(%v: f32[2]) -> f32[2] {
        %0: f32[2] = exp(%v)
        %1: f32[2] = abs(%v)
        return %1
      }}
      return %c
    }""", "dce", """graph @f(%x: f32[2]) -> f32[2] {
      %c: f32[2] = fused(%x) {body=graph @g(%v: f32[2]) -> f32[2] {
        %1: f32[2] = abs(%v)
        return %1
      }}
      return %c
    }""")
