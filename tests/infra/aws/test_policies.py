"""The evaluator of policies refuses calls that are not allowed. The tests of the roles rely on it."""

from __future__ import annotations

import pytest

from tests.infra.aws.policies import Call, allows

LAKE = "arn:aws:s3:::lake"
DOCUMENT = {
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:Get*", "s3:PutObject"], "Resource": f"{LAKE}/runs/*"},
        {
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": "arn:aws:iam::1:role/node",
            "Condition": {"StringLike": {"iam:PassedToService": "ec2.amazonaws.com*"}},
        },
    ]
}


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        (Call("s3:GetObject", f"{LAKE}/runs/a/b"), True),
        (Call("s3:PutObject", f"{LAKE}/runs/a"), True),
        (Call("s3:DeleteObject", f"{LAKE}/runs/a"), False),
        (Call("s3:GetObject", f"{LAKE}/models/a"), False),
        (Call("s3:GetObject", "arn:aws:s3:::other/runs/a"), False),
        (Call("iam:PassRole", "arn:aws:iam::1:role/node", {"iam:PassedToService": "ec2.amazonaws.com"}), True),
        (Call("iam:PassRole", "arn:aws:iam::1:role/node", {"iam:PassedToService": "lambda.amazonaws.com"}), False),
        (Call("iam:PassRole", "arn:aws:iam::1:role/node"), False),
    ],
    ids=range(8),
)
def test_only_matching_calls_are_allowed(call: Call, allowed: bool) -> None:
    assert allows([DOCUMENT], call) is allowed
