"""What tests and benchmarks share: data folder, comparison rules, named shapes. The library never imports it."""
