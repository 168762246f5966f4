# make demo         compile and run the trained model in examples/digits
# make test         lint, types, tests and doctests (what CI runs)
# make lint         ruff and pyright alone
# make conformance  the outside suites: ONNX backend tests, PyTorch's OpInfo, transformers table, the inspect page in a browser; and that
#                   generated graphs reach every branch of the passes
# make bench        latency beside other engines, compile and import times, what each pass, schedule and target gives
#
# Each makes its own .venv with Python >= 3.11 and installs what it needs, pinned by constraints.txt.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint conformance bench train clean
.DEFAULT_GOAL := test

$(VENV)/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "effcc needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# One stamp a set of extras: a second call installs nothing.
$(VENV)/installed-%: $(VENV)/pyvenv.cfg pyproject.toml setup.py constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

demo: $(VENV)/installed-onnx
	$(BIN)/python examples/digits/demo.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

test: lint
	$(BIN)/python -m pytest

conformance: $(VENV)/installed-dev $(VENV)/installed-bench
	$(BIN)/python tests/conformance/onnx_backend.py --engine cpu --jobs 2
	$(BIN)/python tests/conformance/opinfo.py --jobs 2
	$(BIN)/python -m effcc.fuzz.outside --api onnx --calls 5000 --report
	$(BIN)/python -m effcc.fuzz.outside --api torch --calls 2000 --report
	$(BIN)/python benchmarks/architectures_table.py --onnx
	$(BIN)/python benchmarks/trained_models.py
	$(BIN)/python -m effcc.fuzz.pass_coverage --examples 40
	$(BIN)/python -m pytest tests/conformance

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/pipeline_scaling.py
	$(BIN)/python benchmarks/compile_time.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/tiles.py
	$(BIN)/python benchmarks/int8.py
	$(BIN)/python benchmarks/weight_only.py
	$(BIN)/python benchmarks/sparsity.py
	$(BIN)/python benchmarks/tokens.py
	$(BIN)/python benchmarks/budget.py
	$(BIN)/python benchmarks/onnx_export.py
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/python benchmarks/fuzzing.py

train: $(VENV)/installed-dev
	$(BIN)/python examples/digits/train.py

clean:
	rm -rf $(VENV) build dist *.egg-info
