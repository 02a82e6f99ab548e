"""Deploy to AWS: the CloudFormation template, and code that deploys it and plans a run."""
