# Every command of the project; `make help` lists them. Recipes run from this folder and use relative paths, because
# make splits a list at spaces. Works with GNU make 3.81 (macOS) and later.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

RUN := .venv/bin/python
# java_home is read when the recipe runs: setup may have written it a moment before.
RUN_PIPELINE = JAVA_HOME="$$(cat .venv/java_home)" $(RUN)

# Passed on unexpanded, in the environment: a file's name may hold spaces, quotes and dollar signs.
ifdef CORPUS
override CORPUS := $(value CORPUS)
export CORPUS
endif
ifdef TEXT
override TEXT := $(value TEXT)
export TEXT
endif
export SIZES_MB
# Read by setup.sh.
export PYTHON TORCH TORCH_INDEX
# Bytecode is always cached: dozens of processes import Airflow, Spark and torch, and compile them anew otherwise.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

##@ Start

.PHONY: setup
setup: ## Make .venv from the lock files, and find Java [PYTHON=python3.12] [TORCH=cpu|cuda] [TORCH_INDEX=URL]
	@infra/setup/setup.sh
	@$(if $(filter setup,$(MAKECMDGOALS)),echo 'setup: ready. Next: make demo (a whole run) or make airflow (with its UI)')

.PHONY: demo
demo: setup ## Run the whole DAG on a sample text, on this machine [CORPUS=path]
	@$(RUN_PIPELINE) -m infra.demo

.PHONY: airflow
airflow: setup ## Start Airflow with its UI and the embedded EMR, on loopback
	@$(RUN_PIPELINE) -m infra.airflow.standalone

.PHONY: yarn
yarn: setup ## Start Airflow as 'make airflow' does, with clusters that run YARN on several hosts (Linux, root) [NIGHTJAR_HADOOP_JARS=folder]
	@$(RUN_PIPELINE) -m infra.airflow.standalone --executors yarn --lake s3://nightjar/yarn --home .airflow/yarn

##@ docker-compose

.PHONY: up
up: ## Build the image and start PostgreSQL, Airflow and the embedded EMR
	@infra/compose/compose.sh up

.PHONY: down
down: ## Stop the containers; the database, the secrets and the lake stay
	@infra/compose/compose.sh down

.PHONY: logs
logs: ## Follow the logs of the containers
	@infra/compose/compose.sh logs

##@ While you work

.PHONY: test-one
test-one: setup ## Run one test, file or folder: T=tests/jobs/test_fingerprint.py
	@test -n '$(T)' || { echo 'name a test: make test-one T=tests/jobs/test_fingerprint.py' >&2; exit 2; }
	$(RUN_PIPELINE) -m pytest --exitfirst -m "long or not long" $(T)

.PHONY: test-fast
test-fast: setup ## Run the tests that need neither Spark nor Airflow and take less than about a second
	$(RUN) -m pytest $(PARALLEL) $(CHECKS:%=--ignore=%) -m "not spark and not airflow and not slow and not compose"

.PHONY: format
format: setup ## Format the code and fix what lint can fix
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

CHECKS = tests/test_imports.py tests/test_requirements.py tests/test_secrets.py
PARALLEL = --numprocesses 4 --dist load --no-loadscope-reorder
DEPTRY = .venv/bin/deptry --config requirements/deptry.toml
.PHONY: lint
lint: setup ## Check format, lint, types and imports, without running a test
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy dags docs jobs plugins infra tests/support
	.venv/bin/lint-imports --no-logo
	$(DEPTRY) jobs --requirements-files requirements/job.in,requirements/torch.txt
	$(DEPTRY) dags plugins jobs/config jobs/lake jobs/metrics jobs/prices jobs/results jobs/sources --requirements-files requirements/airflow.in \
		--extend-exclude jobs/results/pictures.py  # only the job imports it
	$(DEPTRY) infra --requirements-files requirements/dev.in --ignore DEP002

.PHONY: check
check: lint ## Run 'make lint', and the tests of imports, lock files and secrets; changes nothing
	$(RUN) -m pytest -q $(CHECKS)

.cache/axe/made: requirements/axe.txt
	$(RUN) -m uv pip install --quiet --target .cache/axe --require-hashes --no-deps -r requirements/axe.txt
	touch $@

# An environment for tests that start Airflow with another auth manager.
.venv-fab/made: requirements/fab.txt
	$(RUN) -m uv venv --quiet --clear --python $(RUN) .venv-fab
	$(RUN) -m uv pip sync --quiet --python .venv-fab/bin/python --require-hashes requirements/fab.txt
	touch $@

.PHONY: test
test: lint .cache/axe/made ## Run what 'make check' runs, and every test of less than about ten seconds; CI runs this
	$(RUN_PIPELINE) -m pytest $(PARALLEL) --durations 15

.PHONY: test-random
test-random: setup ## Run the property tests with new random examples
	$(RUN_PIPELINE) -m pytest $(PARALLEL) --hypothesis-profile random -m hypothesis

.PHONY: coverage
coverage: setup ## Run every test with coverage (a quarter slower), and show the lines of jobs that no test reached
	$(RUN_PIPELINE) -m pytest --cov --cov-report term-missing:skip-covered $(PARALLEL) -m "long or not long"

.venv-docs/made: requirements/docs.txt
	$(RUN) -m uv venv --quiet --clear --python $(RUN) .venv-docs
	$(RUN) -m uv pip sync --quiet --python .venv-docs/bin/python --require-hashes requirements/docs.txt
	touch $@

.PHONY: docs
docs: setup .venv-docs/made ## Build the documentation into site/, searchable and offline
	$(RUN) -m docs.generate
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --quiet
	@echo "docs: open site/index.html"

# dev.txt has the packages of all other lock files. It is locked first, so that it fixes their versions. Without UPGRADE,
# versions stay as they are.
COMPILE = $(RUN) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)
.PHONY: lock
lock: setup ## Write the lock files in requirements/ again [UPGRADE=1]
	$(COMPILE) requirements/dev.in -o requirements/dev.txt
	for name in airflow job serve image bench bench-generate docs fab; do \
		$(COMPILE) requirements/$$name.in -c requirements/dev.txt -o requirements/$$name.txt || exit; \
	done

.PHONY: torch-hashes
torch-hashes: setup ## Write the hashes of torch's wheels again, from PyTorch's indexes
	$(RUN) -m infra.setup.torch_hashes

.PHONY: clean
clean: ## Remove caches and coverage data, but not .venv*, lake, .airflow and .cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

##@ Slow tests

.PHONY: test-compose
test-compose: setup ## Test docker-compose on this machine's Docker engine
	$(RUN_PIPELINE) -m pytest -s -p no:cacheprovider -m compose tests/compose

.PHONY: test-peers
test-peers: setup .venv-peers/made ## Test that Hugging Face transformers opens our model folder and computes the same results
	$(PEERS) -m pytest -p no:cacheprovider tests/peers

# An environment with the packages of .venv, but another version of Spark.
SPARK41 := .venv-spark41/bin/python
.venv-spark41/made: requirements/spark41.txt
	$(RUN) -m uv venv --quiet --clear --python $(RUN) .venv-spark41
	$(RUN) $(PURELIB) >"$$($(SPARK41) $(PURELIB))/job.pth"
	$(RUN) -m uv pip install --quiet --python $(SPARK41) --require-hashes --no-deps -r requirements/spark41.txt
	touch $@

.PHONY: test-spark41
test-spark41: setup .venv-spark41/made ## Run the tests of the Spark engine on Spark 4.1.1, the version in emr-spark-8.1.0
	@$(SPARK41) -c 'import pyspark; print("pyspark", pyspark.__version__)'
	JAVA_HOME="$$(cat .venv/java_home)" $(SPARK41) -m pytest -q -p no:cacheprovider tests/jobs/engine

.PHONY: test-bootstrap
test-bootstrap: setup ## Run the bootstrap action on a bare Debian (needs root and debootstrap) and on the embedded EMR
	$(RUN_PIPELINE) -m pytest -q -s -p no:cacheprovider tests/plugins/packaging/bootstrap_lab.py tests/infra/emr/bootstrap_lab.py

# Without the jars, no test could run, so the first command fails if they are missing.
.PHONY: test-yarn
test-yarn: setup ## Test steps on a real YARN cluster (Linux, root) [NIGHTJAR_HADOOP_JARS=folder] [CASE=name]
	@$(RUN_PIPELINE) -m infra.emr.yarn
	$(RUN_PIPELINE) -m pytest -q -s -p no:cacheprovider -m yarn --timeout 1500 $(if $(CASE),-k '$(CASE)') tests/yarn

.PHONY: test-long
test-long: setup .venv-fab/made .cache/axe/made ## Run the tests that take more than about ten seconds: whole runs, real Airflows, killed processes; CI runs this, too
	$(RUN_PIPELINE) -m pytest $(PARALLEL) --durations 15 -m long $$(grep -rl --include='*.py' 'pytest\.mark\.long' tests | sort)

.PHONY: test-pages
test-pages: setup ## Test the web pages of runs in Chromium, with a real Airflow and real runs
	$(RUN_PIPELINE) -m pytest -q -s -p no:cacheprovider -m pages tests/dags/test_pages.py

.PHONY: planted
planted: setup ## Test that after planted faults and cancelled steps the cause is named and everything ends; prints two tables
	@$(RUN_PIPELINE) -m pytest -q -s -p no:cacheprovider -m "planted or slow" tests/plugins/emr/test_planted.py tests/dags/test_cancel.py

# Two environments as Amazon MWAA makes them: another Airflow on another Python, with and without aiobotocore.
AIRFLOW_VERSION ?= 3.3.1
MWAA_PYTHON ?= 3.12
MWAA := .venv-mwaa/$(AIRFLOW_VERSION)
$(MWAA)/made: requirements/airflow.in
	$(RUN) -m infra.cli aws-bundle
	for extra in with without; do \
		$(RUN) -m uv venv --quiet --clear --python $(MWAA_PYTHON) $(MWAA)/$$extra && \
		sed "$$(test $$extra = with || echo 's/\[aiobotocore\]//')" dist/requirements.txt >$(MWAA)/$$extra.txt && \
		$(RUN) -m uv pip install --quiet --python $(MWAA)/$$extra/bin/python \
			$(if $(CONSTRAINTS),-c '$(CONSTRAINTS)') apache-airflow==$(AIRFLOW_VERSION) -r $(MWAA)/$$extra.txt || exit 1; \
	done
	touch $@

.PHONY: test-mwaa
test-mwaa: setup $(MWAA)/made ## Run the bundle's DAG in another version of Airflow [AIRFLOW_VERSION=3.3.1] [MWAA_PYTHON=3.12] [CONSTRAINTS=file or URL]
	NIGHTJAR_MWAA='$(abspath $(MWAA))' $(RUN_PIPELINE) -m pytest -q -s -p no:cacheprovider -m mwaa tests/mwaa

.PHONY: chaos
chaos: setup ## Train while workers, executors and drivers are killed at random times; prints a table
	@$(RUN_PIPELINE) -m tests.chaos

.PHONY: chaos-airflow
chaos-airflow: setup ## Disturb each call of a run to EMR and S3 in turn; resumable, prints tables [SAMPLE=n] [SEED=0] [DAG=plain]
	@$(RUN_PIPELINE) -m tests.chaos_airflow --sample $(or $(SAMPLE),0) --seed $(or $(SEED),0) $(DAG:%=--dag %)

.PHONY: nights
nights: setup ## Run 30 nights of a pipeline, simulate its promotion gate, fail between its writes; prints tables [NIGHTS=30] [GATES=200] [TEXT=path]
	@$(RUN_PIPELINE) -m tests.nights --nights $(or $(NIGHTS),30) --gates $(or $(GATES),200)

.PHONY: ten-days
ten-days: setup ## Run the first ten days of a pipeline, and write docs/guides/ten-days.md from the output
	@$(RUN_PIPELINE) -m tests.nights.days

.PHONY: fuzz
fuzz: setup ## Give random and damaged input to every reader and command; prints a table [CASES=10000] [SEED=0] [ONLY=corpus]
	@$(RUN_PIPELINE) -m tests.fuzz --cases $(or $(CASES),10000) --seed $(or $(SEED),0) --only '$(ONLY)'

.PHONY: screenshots
screenshots: setup ## Take screenshots of the web pages of runs in Chromium, with a real Airflow and real runs [OUTPUT=screenshots]
	@$(RUN_PIPELINE) -m tests.screenshots $(if $(OUTPUT),--output '$(OUTPUT)')

.PHONY: guard
guard: setup ## Compare the results of an earlier commit with those of this tree: BASE=commit [ONLY="tiny spark"] [KEEP=folder]
	@$(RUN_PIPELINE) -m tests.guard $(if $(BASE),'$(BASE)') $(if $(ONLY),--only '$(ONLY)') $(if $(KEEP),--keep '$(KEEP)')

##@ Benchmarks: ratios against peers

# An environment with the packages of .venv and those of bench-generate.txt.
PEERS := .venv-peers/bin/python
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
.venv-peers/made: requirements/bench-generate.txt
	$(RUN) -m uv venv --quiet --clear --python $(RUN) .venv-peers
	$(RUN) $(PURELIB) >"$$($(PEERS) $(PURELIB))/job.pth"
	$(RUN) -m uv pip install --quiet --python $(PEERS) --require-hashes --no-deps -r requirements/bench-generate.txt
	touch $@

# An environment with the packages of bench.txt only.
.venv-bench/made: requirements/bench.txt
	$(RUN) -m uv venv --quiet --clear --python $(RUN) .venv-bench
	$(RUN) -m uv pip sync --quiet --python .venv-bench/bin/python --require-hashes requirements/bench.txt
	touch $@

.PHONY: bench
bench: bench-tokenize bench-windows bench-embed bench-generate bench-serve bench-train bench-spark ## Run all benchmarks except the last three

.PHONY: bench-tokenize
bench-tokenize: setup .venv-bench/made ## Compare our tokenize step with others [TEXT=path] [SIZES_MB="10 100 1000"]
	@$(RUN_PIPELINE) -m bench.tokenization

.PHONY: bench-windows
bench-windows: setup ## Compare windows stored as offsets with windows stored as copies [TEXT=path]
	@$(RUN_PIPELINE) -m bench.windows

.PHONY: bench-embed
bench-embed: setup .venv-bench/made ## Compare our word2vec with gensim's, and the neighbours of ten words [TEXT=path]
	@$(RUN_PIPELINE) -m bench.embed

.PHONY: bench-generate
bench-generate: setup .venv-peers/made ## Compare our decoding with transformers.generate
	$(PEERS) -m bench.generate

.PHONY: bench-serve
bench-serve: setup ## Compare 32 requests at once to nightjar serve with one at a time
	$(RUN) -m bench.serve

.PHONY: bench-train
bench-train: setup .venv-peers/made ## Compare our training step with one of transformers
	$(PEERS) -m bench.train

.PHONY: bench-spark
bench-spark: setup ## Measure the cost of Spark: a step against a plain process, the start of workers, a round
	@$(RUN_PIPELINE) -m bench.spark_overhead

.PHONY: bench-quality
bench-quality: setup ## Compare the seconds of training to a given quality with nanoGPT's recipe: TEXT=path
	@$(RUN_PIPELINE) -m bench.quality

.PHONY: bench-strategies
bench-strategies: setup ## Measure the loss after equal tokens, and the bytes moved, for each strategy [TEXT=path]
	@$(RUN_PIPELINE) -m bench.strategies

.PHONY: bench-link
bench-link: setup ## Measure the strategies over a link of 100 Mbit/s (Linux, root)
	@$(RUN_PIPELINE) -m bench.slow_link

##@ AWS

# ENV names the deployment; PARAMS are the parameters of infra/aws/template.yaml.
ARCH ?= x86_64
BUILD ?= cpu
PRESET ?= demo

.PHONY: package-check
package-check: setup ## Build the cluster's package and run its bootstrap action here [BUILD=cpu|cuda] [LAKE=s3://...]
	@$(RUN_PIPELINE) -m infra.cli aws-package check --arch $(ARCH) --torch $(BUILD) $(if $(LAKE),--lake '$(LAKE)')

.PHONY: package-wheelhouse
package-wheelhouse: setup ## Collect wheels for nodes without internet [ARCH=aarch64] [BUILD=cuda] [LAKE=s3://...]
	@$(RUN_PIPELINE) -m infra.cli aws-package wheelhouse --arch $(ARCH) --torch $(BUILD) $(if $(LAKE),--lake '$(LAKE)')

.PHONY: aws-plan
aws-plan: setup ## Print and validate the requests that a run sends to EMR, without AWS [PRESET=demo] [LAKE=s3://...]
	@$(RUN_PIPELINE) -m infra.cli aws-plan --preset $(PRESET) $(if $(LAKE),--lake '$(LAKE)')

.PHONY: aws-check
aws-check: setup ## Check an AWS account before a run costs money [PRESET=demo] [AIRFLOW_ROLE=arn:...]
	@$(RUN_PIPELINE) -m infra.cli aws-check --preset $(PRESET) $(if $(AIRFLOW_ROLE),--airflow-role '$(AIRFLOW_ROLE)')

.PHONY: aws-smoke
aws-smoke: setup ## Run the smallest run on AWS and record facts about the EMR release; asks before it costs money [OUTPUT=DIR]
	@$(RUN_PIPELINE) -m infra.cli aws-smoke $(if $(OUTPUT),--output '$(OUTPUT)')

.PHONY: prices
prices: setup ## Fetch the prices of clusters from AWS, and write them to prices.toml or NIGHTJAR_PRICES [PRESET=demo] [REGION=us-east-1]
	@$(RUN_PIPELINE) -m infra.cli prices --preset $(PRESET) $(if $(REGION),--region '$(REGION)')

# checkov brings over a hundred packages, so it runs in an environment of its own.
.PHONY: aws-lint
aws-lint: setup ## Run checkov over the template and the image's Dockerfile
	$(RUN) -m uv tool run --python $(RUN) checkov@3.3.30 --skip-download --compact --quiet \
		-f infra/aws/template.yaml infra/compose/Dockerfile

.PHONY: aws-bundle
aws-bundle: setup ## Pack dags.zip, plugins.zip and their requirements into dist, for an Airflow elsewhere such as MWAA
	@$(RUN_PIPELINE) -m infra.cli aws-bundle

.PHONY: aws-deploy
aws-deploy: setup ## Create or change a deployment on AWS: ENV=prod PARAMS="VpcId=vpc-1 SubnetIds=subnet-1"
	@$(RUN_PIPELINE) -m infra.cli aws-deploy '$(ENV)' $(PARAMS)

.PHONY: aws-destroy
aws-destroy: setup ## Delete a deployment on AWS, but keep its bucket: ENV=prod
	@$(RUN_PIPELINE) -m infra.cli aws-deploy '$(ENV)' --destroy
