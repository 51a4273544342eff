# Two targets do everything on a machine that has only Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/freqrobust eval --defense smooth --rho 0.5

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy -p freqrobust
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m 'slow or not slow'

# setuptools below 81 is installed first: some packages of the `zoo` extra still need pkg_resources.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "setuptools<81" wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all]"
	touch $@

# databricks-sdk, which MLflow needs, asks for a version of requests that torchattacks excludes; MLflow's stores in directories,
# which the tests use, work with the other one. So these two are installed without the check, after what else MLflow needs.
MLFLOW_NEEDS := anyio cachetools click cloudpickle fastapi GitPython google-auth importlib_metadata opentelemetry-api \
	opentelemetry-proto opentelemetry-sdk packaging protobuf python-dotenv PyYAML sqlparse starlette typing_extensions uvicorn

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all,dev]" $(MLFLOW_NEEDS)
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps mlflow-skinny databricks-sdk
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
