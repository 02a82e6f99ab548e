"""What a deployment on AWS needs: CloudFormation template, bootstrap action, and the commands around them."""
