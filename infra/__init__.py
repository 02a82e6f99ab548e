"""The environments of Nightjar: a local Airflow and EMR, Docker Compose, AWS. Also the console command and set-up."""
