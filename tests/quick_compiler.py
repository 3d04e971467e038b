"""A compiler in a hurry, for what compiles far more than it computes.

Tests and the notebooks of the site use these flags of XLA. LLVM's work counts
for large programs, and for small ones XLA's newer way to write loops, without
which it needs half the time. Importing this imports no JAX.
"""

FLAGS = (
  "--xla_backend_optimization_level=0",
  "--xla_llvm_disable_expensive_passes=true",
  "--xla_cpu_use_fusion_emitters=false",
)
