"""Which errors a task is retried for: faults of AWS and the lake that may pass, and never the user's mistakes."""

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from jobs.config import resolve
from jobs.errors import DamagedError, InputError, LakeError
from jobs.lake.layout import Lake
from jobs.lake.store import Store
from nightjar.errors import TransientFaultError, UserError, input_errors_are_final, is_refusal, may_pass, message_of
from nightjar.tasks import preflight
from tests.support import airflow


def refused(code, status=400):
    answer = {"Error": {"Code": code, "Message": "not\nnow"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "DescribeCluster")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (refused("ThrottlingException"), True),
        (refused("ServiceUnavailable", 503), True),
        (refused("InternalServerException", 500), True),
        (refused("SlowDown", 503), True),
        (refused("AccessDeniedException"), False),
        (refused("ValidationException"), False),
        (refused("NoSuchBucket", 404), False),
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (ConnectionResetError("reset"), True),
        (LakeError("the lake was unreachable"), True),
        (NoCredentialsError(), False),
        (FileNotFoundError("x"), False),
        (PermissionError("x"), False),
        (DamagedError("x"), False),
    ],
)
def test_an_error_is_transient_or_the_users_mistake(error, passes):
    assert may_pass(error) is passes
    with pytest.raises(TransientFaultError if passes else UserError, match="corpus: cannot be read"):
        report(error)


def report(error):
    """Raise an InputError that was caused by `error`, as the checks before a run do."""
    with input_errors_are_final():
        try:
            raise error
        except type(error):
            raise InputError("corpus: cannot be read") from None


def test_a_mistake_of_its_own_is_final_and_other_errors_stay():
    with pytest.raises(UserError, match="too short"), input_errors_are_final():
        raise InputError("too short")
    with pytest.raises(DamagedError), input_errors_are_final():
        raise DamagedError("x")


def test_only_an_answer_that_refuses_is_a_proof_that_nothing_happened():
    assert is_refusal(refused("ValidationException"))
    assert not is_refusal(refused("InternalFailure", 500))
    assert not is_refusal(refused("ThrottlingException"))


def test_the_words_of_an_error_are_one_line():
    assert message_of(refused("AccessDeniedException")) == "DescribeCluster: AccessDeniedException: not now"
    assert message_of(LakeError("away")) == "away"
    assert message_of(FileNotFoundError()) == "FileNotFoundError: "


@pytest.mark.parametrize(
    ("status", "code", "kind"), [(503, "SlowDown", (TransientFaultError, LakeError)), (403, "AccessDenied", UserError)]
)
@pytest.mark.parametrize("operation", ["PutObject", "ListObjectsV2"])
def test_preflight_is_retried_if_s3_is_away(aws_s3, operation, status, code, kind):
    """The probe of the lake and the list of the corpus, which fail at once for a wrong place, are no exception."""
    answer = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}

    def fail(**_):
        return type("Answer", (), {"status_code": status})(), answer

    aws_s3.meta.events.register(f"before-call.s3.{operation}", fail)
    config = resolve(f"s3://{airflow.BUCKET}/none/a.txt", "tiny", {})
    with pytest.raises(kind), input_errors_are_final():
        preflight.prepare(config, Lake(f"s3://{airflow.BUCKET}/x").run("one"))


@pytest.fixture
def aws_s3(emr, aws, monkeypatch):
    """A client of S3 that preflight uses, without long retries."""
    client = boto3.client("s3", endpoint_url=emr.endpoint)
    short = Store(lambda: client, retry_seconds=0.1)
    monkeypatch.setattr("nightjar.aws.store", lambda: short)
    return client
