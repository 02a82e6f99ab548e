# The one front door: `make help` lists it. Every recipe runs from this folder by relative paths, since make cannot
# hold a path with a space in its lists. Written for GNU make 3.81 (macOS) and later.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

RUN := .venv/bin/python
# JAVA_HOME is read when the recipe runs, since setup may have found Java a moment before.
RUN_PIPELINE = JAVA_HOME="$$(cat .venv/java_home)" PYTHONPATH=.:plugins $(RUN)

# Through the environment and unexpanded, so that a file's name may hold spaces, quotes and dollar signs.
ifdef CORPUS
override CORPUS := $(value CORPUS)
export CORPUS
endif
ifdef TEXT
override TEXT := $(value TEXT)
export TEXT
endif
export SIZES_MB
# Read by setup.sh: which Python makes .venv, which build of torch (cpu or cuda), from which index.
export PYTHON TORCH TORCH_INDEX

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## Make .venv from the locks and find Java [PYTHON=python3.12] [TORCH=cpu|cuda] [TORCH_INDEX=URL]
	@infra/setup/setup.sh

.PHONY: demo
demo: setup ## Run the whole pipeline on real text, on this machine [CORPUS=path]
	@$(RUN_PIPELINE) -m infra.demo

.PHONY: airflow
airflow: setup ## Start Airflow with its UI and the embedded EMR, on loopback
	@$(RUN_PIPELINE) -m infra.airflow.standalone

.PHONY: up
up: ## Start all of it by docker-compose: PostgreSQL, Airflow, the embedded EMR
	@infra/compose/compose.sh up

.PHONY: down
down: ## Stop what make up started; database, secrets and lake stay
	@infra/compose/compose.sh down

.PHONY: logs
logs: ## Follow the logs of what make up started
	@infra/compose/compose.sh logs

.PHONY: test
test: check ## What CI runs: check, then every test, with the coverage of jobs
	$(RUN_PIPELINE) -m pytest --cov --numprocesses 2 --dist loadfile

.PHONY: check
check: setup ## Check format, lint, types, import rules and locks; changes nothing
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy $(wildcard dags jobs plugins infra)
	$(RUN) -m pytest -q tests/test_imports.py tests/test_requirements.py tests/test_secrets.py

.PHONY: format
format: setup ## Format the code and fix what lint can fix
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

.PHONY: test-compose
test-compose: setup ## Test docker-compose on this machine's Docker engine
	$(RUN_PIPELINE) -m pytest -s -p no:cacheprovider -m compose tests/compose

# The peers' environment sees what .venv holds, and has beside it what only the comparisons need.
PEERS := .venv-peers/bin/python
.venv-peers/made: requirements/bench-generate.txt
	test -x $(PEERS) || $(RUN) -m venv .venv-peers
	$(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(PEERS) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/job.pth"
	$(PEERS) -m pip install --quiet --no-deps -r requirements/bench-generate.txt
	touch $@

.PHONY: test-peers
test-peers: setup .venv-peers/made ## Test that transformers opens our model folder, with equal outputs
	$(PEERS) -m pytest -p no:cacheprovider tests/peers

.PHONY: bench-generate
bench-generate: setup .venv-peers/made ## Measure our decoding against transformers.generate
	PYTHONPATH=. $(PEERS) -m bench.bench_generate

.PHONY: bench-train
bench-train: setup .venv-peers/made ## Measure our training step against that of transformers
	PYTHONPATH=. $(PEERS) -m bench.train

.PHONY: bench-quality
bench-quality: setup ## Seconds of training to a quality, beside nanoGPT's recipe, TEXT=path
	@$(RUN_PIPELINE) -m bench.quality

.PHONY: chaos
chaos: setup ## Train while workers, executors and drivers are killed at random times; a table
	@$(RUN_PIPELINE) -m tests.chaos

.PHONY: guard
guard: setup ## Compare the results of a commit's tree with today's: BASE=commit [ONLY="tiny spark"] [KEEP=folder]
	@$(RUN_PIPELINE) -m tests.guard $(if $(BASE),'$(BASE)') $(if $(ONLY),--only '$(ONLY)') $(if $(KEEP),--keep '$(KEEP)')

.PHONY: coverage
coverage: setup ## Show the lines of jobs that the last make test did not reach
	$(RUN) -m coverage report --show-missing --skip-covered --fail-under=0

# dev holds both other environments: locked first, it makes them agree. Kept versions stay unless UPGRADE=1.
COMPILE = $(RUN) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links
.PHONY: lock
lock: setup ## Lock the requirements anew [UPGRADE=1]
	$(COMPILE) $(if $(UPGRADE),--upgrade) requirements/dev.in -o requirements/dev.txt
	$(COMPILE) $(if $(UPGRADE),--upgrade) requirements/airflow.in -c requirements/dev.txt -o requirements/airflow.txt
	$(COMPILE) $(if $(UPGRADE),--upgrade) requirements/job.in -c requirements/dev.txt -o requirements/job.txt
	$(COMPILE) $(if $(UPGRADE),--upgrade) requirements/image.in -c requirements/dev.txt -o requirements/image.txt
	$(COMPILE) $(if $(UPGRADE),--upgrade) requirements/bench.in -c requirements/dev.txt -o requirements/bench.txt
	$(COMPILE) $(if $(UPGRADE),--upgrade) requirements/bench-generate.in -c requirements/dev.txt \
		-o requirements/bench-generate.txt

# What benchmarks compare with: apart, since none of it is ours to ship.
.venv-bench/made: requirements/bench.txt
	$(RUN) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --quiet --require-hashes -r requirements/bench.txt
	touch $@

.PHONY: bench
bench: bench-tokenize bench-windows bench-embed bench-generate bench-train bench-spark ## Run all benchmarks: ratios against peers

.PHONY: bench-spark
bench-spark: setup ## What Spark costs: steps beside a plain process, start of a gang, a round
	@$(RUN_PIPELINE) -m bench.spark_overhead

.PHONY: bench-tokenize
bench-tokenize: setup .venv-bench/made ## Our tokenize step beside others [TEXT=path] [SIZES_MB="10 100 1000"]
	@$(RUN_PIPELINE) -m bench.tokenization

.PHONY: bench-windows
bench-windows: setup ## Windows as addresses beside materialised ones [TEXT=path]
	@$(RUN_PIPELINE) -m bench.addresses

.PHONY: bench-embed
bench-embed: setup .venv-bench/made ## Neighbours of ten words; our word2vec beside gensim's [TEXT=path]
	@$(RUN_PIPELINE) -m bench.neighbours

.PHONY: bench-strategies
bench-strategies: setup ## Loss at equal tokens against bytes moved, for each strategy [TEXT=path]
	@$(RUN_PIPELINE) -m bench.strategies

.PHONY: bench-link
bench-link: setup ## The strategies over a link of 100 Mbit/s; Linux, as root
	@$(RUN_PIPELINE) -m bench.shaped_link

# Parameters of the AWS targets; ENV names the deployment, PARAMS are those of infra/aws/template.yaml.
ARCH ?= x86_64
BUILD ?= cpu
PRESET ?= demo

.PHONY: package-check
package-check: setup ## Build the cluster's package and try its bootstrap action here [BUILD=cpu|cuda] [LAKE=s3://...]
	@$(RUN_PIPELINE) -m infra.cli.package check --arch $(ARCH) --torch $(BUILD) $(if $(LAKE),--lake '$(LAKE)')

.PHONY: package-wheelhouse
package-wheelhouse: setup ## Make wheels for nodes without internet [ARCH=aarch64] [BUILD=cuda] [LAKE=s3://...]
	@$(RUN_PIPELINE) -m infra.cli.package wheelhouse --arch $(ARCH) --torch $(BUILD) $(if $(LAKE),--lake '$(LAKE)')

.PHONY: test-bootstrap
test-bootstrap: setup ## Run the bootstrap action on a bare Debian, online and offline (root and debootstrap)
	$(RUN_PIPELINE) -m pytest -q -s -p no:cacheprovider tests/plugins/packaging/bootstrap_lab.py

.PHONY: aws-plan
aws-plan: setup ## Print the requests to EMR of a run, validated; no AWS needed [PRESET=demo] [LAKE=s3://...]
	@$(RUN_PIPELINE) -m infra.aws.plan --preset $(PRESET) $(if $(LAKE),--lake '$(LAKE)')

# In an environment of its own: it brings over a hundred distributions.
.PHONY: aws-lint
aws-lint: setup ## Run checkov over the template and the image's Dockerfile
	$(RUN) -m uv tool run --python $(RUN) checkov@3.3.30 --skip-download --compact --quiet \
		-f infra/aws/template.yaml infra/compose/Dockerfile

.PHONY: aws-bundle
aws-bundle: setup ## Pack dags.zip and plugins.zip for an Airflow elsewhere, such as MWAA, into dist
	@$(RUN_PIPELINE) -m infra.aws.bundle

.PHONY: aws-deploy
aws-deploy: setup ## Create or change a deployment on AWS: ENV=prod PARAMS="VpcId=vpc-1 SubnetIds=subnet-1"
	@$(RUN_PIPELINE) -m infra.aws.deploy '$(ENV)' $(PARAMS)

.PHONY: aws-destroy
aws-destroy: setup ## Delete a deployment on AWS, but keep its bucket: ENV=prod
	@$(RUN_PIPELINE) -m infra.aws.deploy '$(ENV)' --destroy

.PHONY: clean
clean: ## Remove what tools left behind; keeps .venv, .venv-bench, .venv-peers, lake, .airflow and .cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
