# make setup       the virtual environment in .venv: torch, Detectron2, this project
# make test        set-up, lint, format check and the tests
# make quickstart  set-up, then the whole product on real handwritten digits, on a CPU
# make faults      set-up, then every fault into real training runs, and a table of what happened
# make fuzz        set-up, then 10,000 damaged and hostile files through the converter, counted
# make benchmark   set-up, then every part beside stock Detectron2; ROW=mapper for one, REPEATS=9
# make gpu-check   set-up, then what a GPU alone can tell, in nine minutes and one file; WHEELS=wheels without a
#                  network (projects/gpu_check/README.md)
# make study       set-up, then the transfer study: 12 detectors from four kinds of weights, on a CPU
# make clean       remove what these targets made
#
# All may be run again: a step of the set-up is repeated only when a file it depends on has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

VENV_STAMP := $(VENV)/venv.stamp
PROJECT_STAMP := $(VENV)/project.stamp
DETECTRON2_STAMP := $(VENV)/detectron2.stamp
INSTALLER := tools/install_detectron2.py $(wildcard ssl_backbones/installation/*.py)

.PHONY: setup test lint quickstart faults fuzz benchmark gpu-check study clean

setup: $(DETECTRON2_STAMP)

$(VENV_STAMP):
	$(PYTHON) -m venv $(VENV)
	touch $@

$(PROJECT_STAMP): setup.py pyproject.toml $(VENV_STAMP)
	$(BIN)/python -m pip install --editable '.[test]'
	touch $@

# After torch, which building and trying Detectron2 needs.
$(DETECTRON2_STAMP): $(PROJECT_STAMP) $(INSTALLER)
	$(BIN)/python tools/install_detectron2.py
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Two at a time, each with one thread; a file's tests stay together, since the pages' commands build on each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

quickstart: setup
	$(BIN)/python projects/digits/quickstart.py

faults: setup
	$(BIN)/python -m pytest tests/faults --every-fault -q

fuzz: setup
	$(BIN)/python tests/fuzz/fuzz_converter.py --inputs 10000

benchmark: setup
	$(BIN)/python projects/benchmarks/benchmark.py $(addprefix --row ,$(ROW)) --repeats $(or $(REPEATS),5)

GPU_CHECK := projects/gpu_check/gpu_check.py
GPU_SITE := output/gpu_check_packages
ifdef WHEELS
gpu-check:
	$(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target $(GPU_SITE) $(WHEELS)/*.whl
	PYTHONPATH=$(GPU_SITE) $(PYTHON) $(GPU_CHECK)
else
gpu-check: setup
	$(BIN)/python $(GPU_CHECK)
endif

study: setup
	$(BIN)/python projects/digits/make_dataset.py --root output/transfer_study/scenes --num-train 400 --num-test 200
	test -e output/transfer_study/moco.pth || \
	$(BIN)/python projects/digits/pretrain.py --depth 18 --learning-rate 1e-3 --iterations 400 --output output/transfer_study/moco.pth
	test -e output/transfer_study/swav.pth || \
	$(BIN)/python projects/digits/pretrain.py --method swav --depth 18 --iterations 400 --output output/transfer_study/swav.pth
	$(BIN)/python tools/compare_backbones.py output/transfer_study/moco.pth output/transfer_study/swav.pth scratch \
	output/transfer_study/moco.pth:shuffled --data output/transfer_study/scenes \
	--config-file projects/transfer_study/configs/resnet18_digits.py dataloader.train.total_batch_size=4 --output output/transfer_study/finetuned

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
