"""Notifications: Airflow's own notifiers, as a pipeline's file names them."""

import json

import pytest
from pydantic import ValidationError

from jobs.errors import BudgetError, InputError
from nightjar import notifications
from nightjar.errors import UserError, input_errors_are_final
from nightjar.notifications import Notification
from tests.support.receiver import receiver

HTTP = "airflow.providers.http.notifications.http.HttpNotifier"
SMTP = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"


class Ran:
    """A task that has ended, as callbacks see it."""

    task_id = "promote"

    def __init__(self, decision):
        self.decision = decision

    def xcom_pull(self, task_ids):
        return self.decision if task_ids == "promote" else None


@pytest.fixture
def chat(monkeypatch):
    with receiver() as running:
        monkeypatch.setenv("AIRFLOW_CONN_CHAT", f"http://127.0.0.1:{running.port}")
        yield running


def notification(*on, **arguments):
    return Notification(on=on, notifier=HTTP, http_conn_id="chat", **arguments)


@pytest.mark.parametrize(
    ("decision", "sent"),
    [
        ({"promoted": True, "why": "better"}, ["promotion: better"]),
        ({"promoted": False, "why": "worse"}, ["rejection: worse"]),
        ({"promoted": False, "judged": False, "why": "an experiment"}, []),
    ],
)
def test_a_decision_is_sent_to_those_who_asked_for_it(chat, decision, sent):
    for on in ("promotion", "rejection", "failure"):
        for send in notifications.on_decision([notification(on, json={"text": on + ": {{ decision.why }}"})]):
            send({"ti": Ran(decision)})
    assert [each["text"] for each in chat.received] == sent


def failed(error):
    """Return the error of a task that has raised `error`."""
    with pytest.raises(UserError) as found, input_errors_are_final():
        raise error
    return found.value


@pytest.mark.parametrize(
    ("context", "sent"),
    [
        ({"exception": failed(BudgetError("budget.usd: too little"))}, ["budget.usd: too little"]),
        ({"exception": failed(InputError("budget.usd: not a number"))}, []),
        ({"exception": ValueError("a defect")}, []),
        ({"ti": Ran({"stopped_by_budget": True})}, ["the budget ended the training early; the run has a model"]),
        ({"ti": Ran({"valid_loss": 4.0})}, []),
    ],
)
def test_what_a_budget_does_is_sent(chat, context, sent):
    for on in ("budget", "failure"):
        for send in notifications.on_budget([notification(on, json={"text": "{{ budget }}"})]):
            send(context)
    assert [each["text"] for each in chat.received] == sent


def test_a_failure_is_sent(chat):
    [send] = notifications.on_failure(
        [notification("failure", json={"text": "{{ run_id }}"}), notification("promotion")]
    )
    context = {"run_id": "n-1"}
    send(context)
    assert (json.dumps(chat.received), context) == ('[{"text": "n-1"}]', {"run_id": "n-1"})


@pytest.mark.parametrize(
    ("notifier", "arguments", "message"),
    [
        (HTTP, {"endpont": "x"}, "unexpected keyword argument 'endpont'"),
        (SMTP, {}, "missing a required argument: 'to'"),
        ("airflow.providers.smtp.notifications.smtp.SmtNotifier", {}, "has no attribute 'SmtNotifier'"),
    ],
)
def test_wrong_arguments_are_named_before_a_cluster_exists(notifier, arguments, message):
    with pytest.raises(InputError, match=rf"^pipeline\.notify: {notifier}: .*{message}"):
        notifications.check([Notification(on=["failure"], notifier=notifier, **arguments)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"on": ["failure"], "notifier": "airflow.providers.none.X"}, "not the class of an installed notifier"),
        ({"on": ["failure"], "notifier": "X"}, "not the class of an installed notifier"),
        ({"on": [], "notifier": HTTP}, "at least 1 item"),
        ({"on": ["sunrise"], "notifier": HTTP}, "'failure', 'promotion', 'rejection' or 'budget'"),
    ],
)
def test_a_wrong_table_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        Notification(**values)


def test_the_notifiers_that_the_guide_names_exist():
    for notifier in (HTTP, SMTP, "airflow.providers.amazon.aws.notifications.sns.SnsNotifier"):
        Notification(on=["failure"], notifier=notifier)
