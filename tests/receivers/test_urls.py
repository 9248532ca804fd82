"""Which URLs are sent to: one way of writing each, https, and nothing that is inside."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payorder.adapters.receivers import urls
from payorder.adapters.receivers.rules import Rules
from payorder.adapters.receivers.urls import target_of
from payorder.ports.receivers import UrlRefused
from support.receivers import networks

PRODUCTION = Rules(allows_http=False, ports=frozenset({443}), networks=())
DEVELOPMENT = Rules(allows_http=True, ports=None, networks=networks("127.0.0.0/8", "10.0.0.0/8", "fd00::/8"))

ACCEPTED = (
    "https://example.com",
    "https://example.com/",
    "https://example.com/hooks/payorder?shop=1&key=%2F%20+a;b",
    "https://example.com/a%40b%41/...?to=https%3A%2F%2Fexample.com%2F",
    "https://a-1.b.example.co.uk/a//b",
    "https://xn--bcher-kva.example/",
    "https://1.example.com/",
    "https://8.8.8.8/",
    "https://[2606:4700:4700::1111]/hook",
    "https://[64:ff9b::808:808]/",
    "https://" + ".".join(["a" * 63] * 3) + ".example/",
)

REFUSED = {
    "H1 schemes": (
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "data:text/plain,x",
        "javascript:alert(1)",
        "unix:/run/payorder.sock",
        "http+unix://%2Frun%2Fpayorder.sock/",
        "HTTPS://example.com/",
        "https:/example.com/",
        "https:example.com",
        "https:///example.com/",
        "//example.com/",
        "example.com",
        "/hook",
        "wss://example.com/",
        "",
    ),
    "H2 this machine": (
        "https://127.0.0.1/",
        "https://127.255.255.254/",
        "https://localhost/",
        "https://LOCALHOST/",
        "https://shop.localhost/",
        "https://localhost.localdomain/",
        "https://0/",
        "https://0.0.0.0/",
        "https://[::1]/",
        "https://[::]/",
    ),
    "H3 numbers": (
        "https://127.1/",
        "https://127.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://127.0.0.01/",
        "https://127.0.0.1./",
        "https://08.8.8.8/",
        "https://8.8.8/",
        "https://134744072/",
        "https://8.8.8.8.8/",
        "https://8.8.8.256/",
        "https://8.8.8.0x8/",
        "https://example.1/",
        "https://example.0x1/",
    ),
    "H4, H5 IPv4 in IPv6": (
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[::ffff:808:808]/",
        "https://[::ffff:0:7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[2002:808:808::]/",
        "https://[::127.0.0.1]/",
        "https://[::7f00:1]/",
        "https://[2001:0:7f00:1::]/",
        "https://[2001::80ff:fffe]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[64:ff9b::127.0.0.1]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[64:ff9b:1::808:808]/",
        "https://[2606:4700::5efe:7f00:1]/",
        "https://[2606:4700::200:5efe:a00:1]/",
    ),
    "H6 to many": (
        "https://224.0.0.1/",
        "https://239.255.255.255/",
        "https://255.255.255.255/",
        "https://240.0.0.1/",
        "https://[ff02::1]/",
        "https://[ff0e::1]/",
    ),
    "H7 metadata": (
        "https://169.254.169.254/",
        "https://[fd00:ec2::254]/",
        "https://[fd20:ce::254]/",
        "https://metadata.google.internal/",
        "https://metadata/",
        "https://instance-data/",
        "https://100.100.100.200/",
        "https://168.63.129.16/",
        "https://192.0.0.192/",
    ),
    "H8 networks inside": (
        "https://10.0.0.1/",
        "https://10.255.255.255/",
        "https://172.16.0.1/",
        "https://172.31.255.255/",
        "https://192.168.1.1/",
        "https://100.64.0.1/",
        "https://198.18.0.1/",
        "https://198.19.255.255/",
        "https://192.0.0.1/",
        "https://192.0.2.1/",
        "https://198.51.100.1/",
        "https://203.0.113.1/",
        "https://192.88.99.1/",
        "https://192.31.196.1/",
        "https://192.52.193.1/",
        "https://192.175.48.1/",
        "https://[2620:4f:8000::1]/",
        "https://[fc00::1]/",
        "https://[fdff::1]/",
        "https://[fe80::1]/",
        "https://[fec0::1]/",
        "https://[2001:db8::1]/",
        "https://[3fff::1]/",
        "https://[5f00::1]/",
        "https://[100::1]/",
        "https://[4000::1]/",
    ),
    "names inside": (
        "https://payorder/",
        "https://db.internal/",
        "https://printer.local/",
        "https://router.home.arpa/",
        "https://1.0.0.127.in-addr.arpa/",
        "https://local/",
    ),
    "H12 ports": (
        *(
            f"https://example.com:{port}/"
            for port in (22, 25, 80, 3306, 5432, 6379, 8443, 9901, 0, 65535, 65536, 99999)
        ),
        "https://example.com:443/",
        "https://example.com:0443/",
        "https://example.com:/",
        "https://example.com:+443/",
        "https://example.com:-1/",
        "https://example.com:443443443443/",
        "https://example.com:\u0664\u0664\u0663/",
    ),
    "who, and what is not sent": (
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://@example.com/",
        "https://:@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com#@127.0.0.1/",
        "https://example.com/#part",
        "https://example.com/?a=b#",
    ),
    "not as it is written": (
        "https://EXAMPLE.com/",
        "https://example.com./",
        "https://.example.com/",
        "https://example..com/",
        "https://-a.example/",
        "https://a-.example/",
        "https://a_b.example/",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 130 + "example/",
        "https://bücher.example/",
        "https://\uff45xample.com/",
        "https://example\u3002com/",
        "https://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/",
        "https://exa%6Dple.com/",
        "https://%31%32%37.0.0.1/",
        "https://[127.0.0.1]/",
        "https://[2606:4700:4700:0:0:0:0:1111]/",
        "https://[2606:4700:4700::1111%25eth0]/",
        "https://[2606:4700:4700::1111%eth0]/",
        "https://[2606:4700:4700::1111/",
        "https://2606:4700:4700::1111/",
        "https://[2606:4700:4700::111G]/",
        "https://[]/",
        "https://[v1.a]/",
        "https://exa mple.com/",
        " https://example.com/",
        "https://example.com/ ",
        "https://example.com/\n",
        "https://example.com/\r\nX: y",
        "https://example.com\t/",
        "https://example.com\\@127.0.0.1/",
        "https:\\\\example.com/",
        "https://example.com/\\..\\",
        "https://example.com/\x00",
        "https://example.com\x00.evil.example/",
        "https://example.com/a/../b",
        "https://example.com/..",
        "https://example.com/./a",
        "https://example.com/%2e%2e/a",
        "https://example.com/a/.%2E",
        "https://example.com/%2E?a",
        "https://example.com/%zz",
        "https://example.com/%2f",
        "https://example.com/%",
        "https://example.com/é",
        "https://example.com/<a>",
        "https://example.com?",
        "https://example.com?a=b",
        "https://example.com/?",
        "https://example.com/{a}",
        "https://?a=b",
        "https://",
        "https:///",
        "https://:443/",
        "https://example.com,127.0.0.1/",
        "https://example.com/" + "a" * 2048,
    ),
}


@pytest.mark.parametrize("url", ACCEPTED)
def test_what_is_on_the_internet_is_accepted_as_it_is_written(url):
    assert url == str(target_of(url, PRODUCTION).url)


@pytest.mark.parametrize("url", [pytest.param(url, id=repr(url)[:60]) for group in REFUSED.values() for url in group])
def test_everything_else_is_refused_without_repeating_it(url):
    with pytest.raises(UrlRefused) as refusal:
        target_of(url, PRODUCTION)
    assert not url or url not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:3000/hook",
        "https://127.0.0.1:8443/",
        "http://10.1.2.3/",
        "http://[fd00::1]:8080/",
        "http://shop:8000/hook",
        "http://localhost:3000/",
        "http://shop.internal/",
        "https://example.com:65535/",
    ],
)
def test_what_an_operator_opens_is_open(url):
    assert url == str(target_of(url, DEVELOPMENT).url)


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.1.1/",
        "http://[::ffff:7f00:1]/",
        "http://[::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://169.254.169.254/",
        "http://127.1/",
        "http://2130706433/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:80/",
        "ftp://127.0.0.1/",
        "http://user@127.0.0.1/",
    ],
)
def test_nothing_but_what_an_operator_opens_is_open(url):
    with pytest.raises(UrlRefused):
        target_of(url, DEVELOPMENT)


def test_ports_are_those_that_an_operator_allows():
    rules = Rules(allows_http=False, ports=frozenset({8443}), networks=())
    target_of("https://example.com:8443/", rules)
    with pytest.raises(UrlRefused):
        target_of("https://example.com/", rules)


def test_a_url_of_every_length_up_to_the_longest_is_accepted():
    begin = "https://example.com/"
    target_of(begin + "a" * (2048 - len(begin)), PRODUCTION)
    with pytest.raises(UrlRefused):
        target_of(begin + "a" * (2049 - len(begin)), PRODUCTION)


@settings(max_examples=300)
@given(st.from_regex(urls._URL, fullmatch=True))
def test_what_is_accepted_is_the_same_to_another_parser(url):
    try:
        target = target_of(url, DEVELOPMENT)
    except UrlRefused:
        return
    other = urlsplit(url)
    assert (other.scheme, other.hostname, other.path or "/") == (
        target.url.scheme,
        target.url.raw_host,
        target.url.raw_path,
    )
    assert (other.port or {"http": 80, "https": 443}[other.scheme], other.query) == (
        target.url.port,
        target.url.raw_query_string,
    )


@settings(max_examples=300)
@given(st.text())
def test_no_text_is_more_than_refused(text):
    for url in (text, f"https://{text}", f"https://example.com/{text}", f"https://[{text}]/"):
        try:
            target_of(url, PRODUCTION)
        except UrlRefused:
            continue
        assert url.isascii()
