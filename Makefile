# Every target makes its own .venv first; nothing else needs to be installed but Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: demo quick test test-slow test-libraries lint format peers mutate wheel docs site notebooks gallery

demo: $(STAMP)
	$(BIN)/unmask demo

# What a person runs while writing: the arithmetic, the attacks' paths, the rules of what is named, decided and verified.
# No audit, no training, no bound; `make test` is the whole. 583 tests took 42 s of processor time, both processes together.
WITH_AUDITS := %/test_top_level.py %/test_testing.py %/test_wheel.py %/test_target_classes.py
QUICK := $(filter-out $(WITH_AUDITS), $(wildcard tests/test_*.py tests/claim/test_*.py tests/report/test_*.py)) \
	tests/attacks/test_[afhmrs]*.py tests/attacks/test_batch.py tests/attacks/test_carlini_wagner.py \
	tests/tracing/detect tests/tracing/symptoms tests/classifier tests/audit/verifying tests/audit/test_standing.py \
	tests/audit/test_findings.py tests/audit/test_evidence.py tests/audit/test_verdict.py tests/audit/test_records.py

quick: $(STAMP)
	$(BIN)/pytest -n 2 -q $(QUICK)

# The shapes in signatures are checked in a run of their own, where every attack runs once in each norm: the checker takes
# more time than what it checks.
SHAPED := tests/attacks/test_contract.py::test_stays_in_ball_and_box_and_keeps_shape_and_dtype \
	tests/attacks/test_detector_attacks.py tests/classifier tests/test_judge.py tests/test_objectives.py \
	tests/test_randomness.py

test: lint
	$(BIN)/pytest -n 2 --doctest-modules
	UNMASK_SHAPES=1 $(BIN)/pytest -n 2 -q $(SHAPED)

test-slow: $(STAMP)
	$(BIN)/pytest -n 2 -m slow

# Other people's attacks, for the tests that stand beside them. Without their dependencies but for what they import:
# torchattacks asks for torchvision, which it never imports, and for a `requests` of 2020.
peers: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check GitPython requests six -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		adversarial-robustness-toolbox eagerpy foolbox torchattacks -c constraints.txt

# Networks of other people's libraries, in a folder of their own: with pinned versions, and without what they depend on
# but do not import here, among it torchvision, which would bring another torch.
LIBRARIES := .venv-libraries/bin

test-libraries:
	test -x $(LIBRARIES)/python || $(PYTHON) -m venv .venv-libraries
	$(LIBRARIES)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(LIBRARIES)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	$(LIBRARIES)/python -m pip install --quiet --disable-pip-version-check -r tests/libraries/imported.txt -c constraints.txt
	$(LIBRARIES)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/libraries/requirements.txt
	KERAS_BACKEND=torch $(LIBRARIES)/pytest -m libraries tests/libraries

# Whether the tests notice what is changed in one file: make mutate MODULE=src/unmask/judge.py; SAMPLE=60 for so many changes.
mutate: $(STAMP)
	$(BIN)/python .ci/mutate.py $(MODULE) $(if $(TESTS),--tests $(TESTS)) $(if $(SAMPLE),--sample $(SAMPLE))

# What `pip install` elsewhere takes: dist/unmask-*.whl.
wheel: $(STAMP)
	$(BIN)/python -m hatchling build -t wheel

# The site in build/site, without warnings or not at all. Slow parts of it are made apart: its notebooks are kept as they
# were run last, and the gallery is shown where `make gallery` has been run.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' -c constraints.txt

site: docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

notebooks: docs
	$(BIN)/python .ci/notebooks.py

gallery: $(STAMP)
	$(BIN)/python .ci/gallery.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and by itself, so that its wheel (with or without CUDA) is the one that the index at hand offers.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@
