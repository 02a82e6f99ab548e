"""Deploy to AWS: the CloudFormation template, and commands that deploy it, plan a run and bundle the DAGs."""
