"""What Nightjar runs on: a local Airflow and EMR, Docker Compose and AWS, with the console command and the set-up."""
