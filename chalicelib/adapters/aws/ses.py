"""E-mail through SES, from the one address of the stage.

| SES responds | `DeliveryError` |
|---|---|
| the sender is not verified, sending is paused, the message is rejected | final: an operator has to act first |
| throttled, not reachable | is retried |
"""

from __future__ import annotations

from chalicelib.adapters.aws import client as aws
from chalicelib.domain.errors import DeliveryError, Unavailable

REFUSED = frozenset(
    {"MessageRejected", "MailFromDomainNotVerifiedException", "AccountSendingPausedException", "InvalidParameterValue", "AccessDenied"}
)


class SesEmailSender:
    """Sends from `sender`; None: the stage has no sender address.

    Calls: 1 for each message, not repeated here.
    """

    def __init__(self, sender: str | None) -> None:
        self._sender = sender

    @property
    def is_configured(self) -> bool:
        return self._sender is not None

    def send(self, to: str, subject: str, text: str) -> None:
        from botocore.exceptions import ClientError

        if self._sender is None:
            raise DeliveryError("e-mail is not configured for this stage", final=True)
        message = {"Subject": {"Data": subject, "Charset": "UTF-8"}, "Body": {"Text": {"Data": text, "Charset": "UTF-8"}}}
        try:
            with aws.translate_errors():
                aws.client("ses", attempts=1).send_email(Source=self._sender, Destination={"ToAddresses": [to]}, Message=message)
        except Unavailable as exc:
            raise DeliveryError("the mail service did not answer") from exc
        except ClientError as exc:
            code = aws.error_code(exc)
            raise DeliveryError(f"the mail service refused it ({code})", final=code in REFUSED) from exc
