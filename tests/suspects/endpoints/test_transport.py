"""TLS, tokens, independence of the environment, and the delays between attempts."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from suspects.endpoints.client_process import random_images
from suspects.endpoints.fault_server import run_fault_server, url_of
from wootz.config import from_mapping, with_settings
from wootz.errors import ConfigError, ModelError
from wootz.suspects.endpoints import Client, endpoint_identity, open_endpoint
from wootz.suspects.endpoints.transport import retry_delay


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Write a self-signed certificate for 127.0.0.1, with its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + signed.public_bytes(Encoding.PEM))
    return path


def test_certificates_are_verified(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # the environment is ignored
    with run_fault_server(certificate=certificate) as server:
        url = url_of(server, scheme="https")
        with (
            pytest.raises(ModelError, match="CERTIFICATE_VERIFY_FAILED"),
            open_endpoint(url, Client(max_tries=1), access="label", transcript=None),
        ):
            pass
        cfg = Client(authorities=str(certificate))
        with open_endpoint(url, cfg, access="label", transcript=None) as endpoint:
            assert (endpoint(random_images(2)) >= 0).all()
            assert endpoint.identity.name == url
        assert endpoint.identity == endpoint_identity(url)
    with (
        pytest.raises(ConfigError, match="authorities = 'nowhere'"),
        open_endpoint(url, Client(authorities="nowhere"), access="label", transcript=None),
    ):
        pass


def test_only_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WOOTZ_TOKEN", "from-the-environment")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hush\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with run_fault_server() as server:
        for token in (None, "given", ""):
            with open_endpoint(url_of(server), Client(), access="label", transcript=None, token=token) as endpoint:
                endpoint(random_images(1))
        tokens = [headers.get("Authorization") for headers in server.headers]
        assert tokens == ["Bearer from-the-environment", "Bearer given", None]
        assert all("Cookie" not in headers for headers in server.headers)
        with (
            pytest.raises(ConfigError, match="printable ASCII"),
            open_endpoint(url_of(server), Client(), access="label", transcript=None, token="a\nb"),
        ):
            pass


@given(st.text(max_size=12) | st.integers().map(str), st.integers(1, 5), st.integers(0, 9))
def test_delays_are_bounded(retry_after: str, attempts: int, seed: int) -> None:
    cfg = Client(seed=seed, backoff=0.5, backoff_cap=3.0, retry_after_cap=11.0)
    seconds = retry_delay(cfg, "id", attempts, {"retry-after": retry_after})
    assert 0 <= seconds <= 11
    assert seconds == retry_delay(cfg, "id", attempts, {"retry-after": retry_after})
    assert retry_delay(cfg, "id", attempts, {}) <= min(3.0, 0.5 * 2**attempts)


def test_retry_after_with_dates_and_seconds() -> None:
    cfg = Client(backoff=0.0)
    for retry_after in (
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "soon",
    ):
        assert retry_delay(cfg, "id", 1, {"retry-after": retry_after}) == 0
    assert retry_delay(cfg, "id", 1, {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}) == 60
    assert retry_delay(cfg, "id", 1, {"retry-after": "12"}) == 12


def test_settings_are_parsed_and_checked() -> None:
    cfg = with_settings(Client(), ["batch=8", "presentation.size=32,32", "template.answer=/x", "classes=a,b"])
    assert (cfg.batch, cfg.presentation.size, cfg.template.answer, cfg.classes) == (8, (32, 32), "/x", ("a", "b"))
    for bad in ({"max_tries": 6}, {"batch": 0}, {"budget": -1}, {"api": "soap"}, {"classes": ["a", "a"]}):
        with pytest.raises(ConfigError):
            from_mapping(Client, bad)
