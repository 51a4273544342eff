# These targets do everything on a machine that has only Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DOCS := .venv-docs

.PHONY: demo test lint docs clean

demo: $(VENV)/.installed
	@OMP_NUM_THREADS=1 $(BIN)/python examples/demo.py # one thread: the network is too small for more

test: $(VENV)/.installed-dev $(DOCS)/.installed
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy -p freqrobust
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m 'slow or not slow'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'slow or not slow' tests/simulated

# The pages of the documentation, in build/site. Needs neither torch nor freqrobust to be installed.
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

# setuptools below 81 is installed first: some packages of the `zoo` extra still need pkg_resources.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "[1/3] creating a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/3] installing setuptools and wheel"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "setuptools<81" wheel
	@echo "[3/3] installing freqrobust with torch and all extras; downloads of torch can take minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all]"
	@touch $@

# databricks-sdk, which MLflow needs, asks for a version of requests that torchattacks excludes; MLflow's stores in directories,
# which the tests use, work with the other one. So these two are installed without the check, after what else MLflow needs.
MLFLOW_NEEDS := anyio cachetools click cloudpickle fastapi GitPython google-auth importlib_metadata opentelemetry-api \
	opentelemetry-proto opentelemetry-sdk packaging protobuf python-dotenv PyYAML sqlparse starlette typing_extensions uvicorn

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]" $(MLFLOW_NEEDS)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps mlflow-skinny databricks-sdk
	@touch $@

$(DOCS)/.installed: docs/constraints.txt
	@echo "installing mkdocs-material and mkdocstrings into $(DOCS)"
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/constraints.txt
	@touch $@

clean:
	rm -rf $(VENV) $(DOCS) build dist *.egg-info
