# mrsi_fast: `make` alone lists what there is. Every target makes its own environment in .venv when there is none.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(shell find csrc -type f)

.DEFAULT_GOAL := help
.PHONY: help demo test browser cluster pictures fuzz signals audit memory bench bench-long bench-report lint clean gpu gpu-record gpu-static

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## super-resolve the bundled example maps into demo_output/
	$(BIN)/mrsi-fast sr -i examples/simulated_glioma --scale 4 --window hamming --support ellipse --units mM -o demo_output
	@echo "demo_output/ holds maps (NIfTI: mean and standard deviation), how they came about (JSON) and report.html, an interactive report."

test: $(VENV)/.dev ## run the tests (what needs ../shared/data skips without it)
	$(BIN)/pytest -n 2

browser: $(VENV)/.dev ## test the interactive report in a headless Chromium, which has to be installed
	$(BIN)/pytest -m browser tests/report

pictures: $(VENV)/.dev ## draw docs/example.png and the guide's cases again, with their figures: after a change of the weights
	$(BIN)/python examples/make_picture.py
	$(BIN)/python examples/make_guide_picture.py

cluster: $(VENV)/.dev ## test Dask workers, killed processes, a scheduler elsewhere and several training processes
	$(BIN)/pytest -m cluster tests

fuzz: $(VENV)/.dev ## random inputs for ten minutes a target: reader, discovery, configuration, operations, extension (MINUTES=, TARGETS=, SEED=)
	PYTHONPATH=tests $(BIN)/python tests/faults/fuzz.py
	MRSI_FAST_FUZZ_ROUNDS=$(or $(ROUNDS),3000) MRSI_FAST_FUZZ_SEED=$(or $(SEED),$$(date +%s)) \
	  $(BIN)/pytest -s tests/engine/test_kernel_sources.py

signals: $(VENV)/.dev ## 200 signals at random moments of sr and train (SIGNALS=, SEED=): exit codes, nothing lost, nothing mixed
	SIGNALS=$(or $(SIGNALS),200) SEED=$(or $(SEED),0) PYTHONPATH=tests $(BIN)/python tests/faults/signals.py

audit: $(VENV)/.dev ## dependencies without a network: versions that fit, files as their wheels recorded them; prints name==version
	PYTHONPATH=tests $(BIN)/python -m support.dependency_audit

memory: $(VENV)/.dev ## peak memory of sr over slices and samples, as in docs/memory.md (Linux; about 10 minutes)
	$(BIN)/python benchmarks/memory.py

bench: $(VENV)/.dev ## time everything against its peers in three processes; adds the rows to benchmarks/results/<machine>.json
	for process in 1 2 3; do $(BIN)/pytest benchmarks/ --benchmark-only --save-results || exit 1; done

bench-long: $(VENV)/.dev ## the same with every peer, max-autotune, whole volumes, quality against latency; then the report
	$(BIN)/pip install -q -e '.[dev,peers]'
	$(BIN)/pytest benchmarks/ --benchmark-only --save-results --long
	$(MAKE) bench-report

bench-report: $(VENV)/.dev ## write docs/speed.md, the README's speed table and the plots from benchmarks/results
	cd benchmarks && ../$(BIN)/python -m harness report

gpu: ## build, test and time the kernels on this machine's NVIDIA GPU; writes benchmarks/results, choices, docs/speed.md
	@command -v nvidia-smi > /dev/null && nvidia-smi -L | grep -q '^GPU' \
	  || { echo "make gpu: no NVIDIA GPU was found (nvidia-smi lists none), so nothing was built, tested or timed;"; \
	       echo "make gpu-static checks what can be known without one."; exit 1; }
	$(MAKE) $(VENV)/.dev
	$(BIN)/pip install -q triton
	rm -rf build mrsi_fast/_C.* mrsi_fast/_build_info.json
	MRSI_FAST_CUDA=1 MRSI_FAST_NATIVE=1 $(BIN)/pip install -e '.[dev]'
	MRSI_FAST_REQUIRE=native,cuda,triton $(BIN)/pytest tests/gpu tests/ops tests/engine
	$(BIN)/python tests/gpu/sanitize.py
	cd benchmarks && MRSI_FAST_REQUIRE=native,cuda,triton ../$(BIN)/python -m gpu

gpu-record: ## the same on a borrowed GPU: no network, at most 480 s, kernels as built before; PYTHON= runs it
	cd benchmarks && $(PYTHON) -m gpu.session

gpu-static: $(VENV)/.dev ## check the GPU kernels without a GPU (needs a CUDA toolkit and Triton)
	$(BIN)/pip install -q triton nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
	$(BIN)/pytest tests/cudasim tests/kernels tests/gpu_static tests/engine/test_fused.py tests/engine/test_capture.py \
	  tests/engine/test_cuda_graph.py -m "gpu_static or not gpu_static"

lint: $(VENV)/.dev ## ruff, mypy, import-linter, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh' \
	  | xargs $(BIN)/clang-format --dry-run -Werror

clean: ## remove what was built and written, the environment included
	rm -rf build dist demo_output *.egg-info mrsi_fast/_C.* mrsi_fast/_build_info.json $(VENV)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Editable, so that changed Python code needs no installation; changed C++ code is compiled again.
$(VENV)/.installed: $(SOURCES) | $(VENV)/bin/pip
	$(BIN)/pip install -e .
	@touch $@

$(VENV)/.dev: $(SOURCES) | $(VENV)/bin/pip
	$(BIN)/pip install -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "mrsi_fast needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
