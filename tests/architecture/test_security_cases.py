"""Where each case of abuse is shown to be refused: a case names its tests, and a test that is renamed is missed here.

What a caller sees is asked through every door that has the case: REST and gRPC through Envoy, and gRPC straight.
"""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

_TOKENS = "edge/test_tokens.py"
_EVERY_BAD_TOKEN = (f"{_TOKENS}::test_whatever_is_wrong_with_a_token_the_answer_is_the_same_and_nothing_happens",)
_LONG_TOKEN = (f"{_TOKENS}::test_a_token_that_is_too_long_is_refused_and_nothing_happens",)
_SCOPES = "edge/test_access.py::test_everybody_gets_exactly_what_is_allowed"
_URLS = (
    "receivers/test_urls.py::test_everything_else_is_refused_without_repeating_it",
    "edge/test_webhooks.py::test_nothing_is_sent_inside_whoever_asks_for_it",
)
_OF_SERVICES = (
    "service/test_webhook_endpoints.py::test_networks_inside_are_open_to_services_alone_unless_an_operator_says_otherwise",
    "service/test_webhook_endpoints.py::test_what_is_sent_inside_is_sent_to_urls_of_services_alone",
    "receivers/test_on_demand.py"
    "::test_what_is_open_to_services_is_closed_to_everybody_else_also_over_a_connection_that_is_there",
)
_INNER = "receivers/test_addresses.py::test_an_address_inside_stays_inside_in_every_form"
_NAMES = "receivers/test_names.py"
_HOSTILE = "receivers/test_hostile_receivers.py"
_EVERY_HOSTILE = f"{_HOSTILE}::test_a_hostile_receiver_gets_no_more_than_its_time_and_its_bytes"
_DELIVER = "workflows/test_deliver_webhooks.py"
_LIMITS = "service/test_card_testing.py"
_LEAKS = "safety/test_leaks.py"
_FILES = f"{_LEAKS}::test_nothing_is_left_in_any_file_of_the_run"

CASES: Mapping[str, tuple[str, ...]] = {
    # Tokens
    "A1 no token": ("edge/test_errors.py::test_without_a_token_nobody_is_answered",),
    "A2 no or several bearer tokens": (
        f"{_TOKENS}::test_one_bearer_token_is_wanted_and_nothing_else",
        f"{_TOKENS}::test_an_empty_authorization_besides_a_good_one_is_two_to_the_service_and_none_to_envoy",
    ),
    "A3 unsigned": _EVERY_BAD_TOKEN,
    "A4 signed with the public key as a secret": _EVERY_BAD_TOKEN,
    "A5 signed with a short secret": _EVERY_BAD_TOKEN,
    "A6 another algorithm than the key's": _EVERY_BAD_TOKEN,
    "A7 SQL in the key's name": _EVERY_BAD_TOKEN,
    "A8 ten thousand unknown keys": ("service/test_issuers.py::test_unknown_keys_are_no_storm_on_the_issuer",),
    "A9 a key's name of 64 KB": _LONG_TOKEN,
    "A10 a header that leads to keys": _EVERY_BAD_TOKEN,
    "A11 an unknown critical extension": _EVERY_BAD_TOKEN,
    "A12 times": _EVERY_BAD_TOKEN,
    "A13 another issuer": _EVERY_BAD_TOKEN,
    "A14 a token for something else": (
        *_EVERY_BAD_TOKEN,
        f"{_TOKENS}::test_tokens_of_type_jwt_are_taken_where_that_is_said",
        "local/test_oauth_refusals.py::test_a_refresh_token_is_good_for_refreshing_alone",
    ),
    "A15 the development issuer in production": (
        f"{_TOKENS}::test_a_token_of_the_development_issuer_is_refused_in_production",
    ),
    "A16 nested or long without end": (
        *_LONG_TOKEN,
        "service/test_tokens.py::test_a_token_that_is_made_to_cost_time_costs_little",
    ),
    "A17 the other of two signatures": (f"{_TOKENS}::test_what_is_accepted_is_accepted_at_every_door",),
    "A18 somebody who was disabled": (f"{_TOKENS}::test_a_disabled_subject_is_refused_while_its_token_is_good",),
    "A19 without the scope, or no JWT": (
        f"{_TOKENS}::test_a_token_without_the_scope_is_good_but_not_enough",
        "service/test_call_records.py::test_who_may_not_pay_is_written_down_through_every_door",
        *_EVERY_BAD_TOKEN,
    ),
    "A20 stolen, and bound to a certificate": (
        "edge/test_client_certificates.py::test_a_token_is_good_with_the_certificate_it_is_bound_to_and_with_no_other",
        "edge/test_client_certificates.py::test_nobody_can_claim_a_certificate_in_a_header",
        f"{_TOKENS}::test_a_certificate_is_not_believed_unless_that_is_configured",
    ),
    # Authorisation
    "B1 somebody else's order": (
        "edge/test_errors.py::test_an_unknown_order_and_a_foreign_one_get_the_same_bytes",
        "contract/test_replays.py::test_an_owners_replay_shows_nothing_of_what_others_do",
        _SCOPES,
    ),
    "B2 a claim that looks like power": (f"{_TOKENS}::test_a_claim_that_looks_like_power_gives_none",),
    "B3 another order in the body": ("edge/test_access.py::test_a_body_cannot_name_another_order_or_owner",),
    "B4 an id that is none": (
        "edge/test_access.py::test_an_id_that_is_none_finds_nothing",
        "edge/test_bad_input.py::test_a_path_means_one_thing_or_nothing",
    ),
    "B5 neighbours of an id": ("edge/test_access.py::test_the_neighbours_of_an_id_are_nobodys",),
    "B6 somebody else's payment": ("edge/test_errors.py::test_a_foreign_payment_is_not_found", _SCOPES),
    "B8 a user as an administrator": (
        "service/test_admin.py::test_a_user_is_refused_and_that_is_written_down",
        "service/test_call_records.py::test_of_a_thousand_refusals_in_a_minute_one_is_told",
        _SCOPES,
    ),
    "B9 an administrator reads": ("service/test_admin.py::test_every_read_is_written_down",),
    "B10 a method that is not offered": (
        "service/test_limits.py::test_an_unknown_method_is_unimplemented",
        "edge/test_bad_input.py::test_a_method_that_a_path_has_not_is_not_found",
    ),
    "B11 another name of a method": ("edge/test_access.py::test_a_method_has_one_name",),
    "B12 a method without a scope": (
        "service/test_default_deny.py::test_a_method_without_an_entry_is_denied_to_everybody",
        "edge/test_access.py::test_every_rpc_needs_a_scope_but_the_one_that_publishes_keys",
        "edge/test_access.py::test_every_rpc_is_in_the_matrix",
    ),
    "B13 a status or owner in the body": (
        "edge/test_bad_input.py::test_a_body_is_strict_json_of_known_names",
        "edge/test_bad_input.py::test_unknown_protobuf_fields_set_nothing",
        "edge/test_access.py::test_a_body_cannot_name_another_order_or_owner",
    ),
    # Where webhooks lead
    "H1 another scheme": _URLS,
    "H2 this machine": (*_URLS, *_OF_SERVICES),
    "H3 numbers that are an address": _URLS,
    "H4 IPv4 in IPv6": _URLS,
    "H5 IPv4 in IPv6 that looks public": (*_URLS, _INNER),
    "H6 addresses of many": _URLS,
    "H7 where clouds tell secrets": _URLS,
    "H8 networks inside": (*_URLS, _INNER, *_OF_SERVICES),
    "H9 a name that leads inside": (f"{_NAMES}::test_a_name_with_one_address_that_is_not_public_is_refused",),
    "H10 a name that leads inside later": (
        f"{_NAMES}::test_the_vetted_address_is_the_one_that_is_connected_to",
        f"{_NAMES}::test_a_name_that_was_public_when_vetted_leads_nowhere_when_it_is_not_any_more",
    ),
    "H11 redirects": (
        f"{_HOSTILE}::test_a_redirect_is_an_answer_and_leads_nowhere",
        f"{_DELIVER}::test_any_answer_but_2xx_is_a_failure_and_is_attempted_again",
    ),
    "H12 ports": (*_URLS, "receivers/test_urls.py::test_ports_are_those_that_an_operator_allows"),
    "H13 proxies in the environment": (
        "receivers/test_requests.py::test_no_proxy_and_no_password_of_the_environment_is_used",
    ),
    "H14 certificates with a fault": (
        "receivers/test_requests.py::test_a_certificate_with_a_fault_is_no_answer_and_the_delivery_is_not_told",
        "receivers/test_requests.py::test_tls_that_is_too_old_is_no_answer",
    ),
    # Hostile receivers
    "I1 who hangs": (_EVERY_HOSTILE, f"{_DELIVER}::test_receivers_that_hang_delay_nobody_else"),
    "I2 who says too much": (
        _EVERY_HOSTILE,
        f"{_HOSTILE}::test_a_compressed_answer_stays_as_small_as_it_is",
    ),
    "I3 who breaks off": (
        _EVERY_HOSTILE,
        "receivers/test_requests.py::test_tls_that_stalls_ends_with_the_time_for_a_connection",
    ),
    "I4 who fails for days": (
        "contract/test_outbox.py::test_an_endpoint_that_has_only_failed_for_five_days_is_disabled",
        "contract/test_outbox.py::test_who_created_an_endpoint_hears_at_the_others_that_it_was_disabled",
        "workflows/test_lanes.py::test_receivers_that_fail_leave_a_quarter_to_those_of_which_nothing_is_known",
    ),
    "I5 our crash after the answer": (
        f"{_DELIVER}::test_what_a_dispatcher_had_when_it_died_another_sends_again_the_same",
        "safety/test_deliveries.py::test_no_event_is_lost_however_often_dispatchers_are_killed",
    ),
    "I6 who has too much to hear": (
        f"{_DELIVER}::test_callbacks_that_hang_delay_nobody_else",
        "workflows/test_lanes.py::test_what_hangs_does_not_keep_others_from_being_claimed",
        "contract/test_query_plans.py::test_every_statement_finds_its_rows_by_an_index",
    ),
    # Injection
    "K1 SQL in every field": (
        "edge/test_mutations.py::test_a_damaged_order_is_refused_or_stored_as_it_was_meant",
        "edge/test_mutations.py::test_a_damaged_payment_is_refused_or_made_as_it_was_meant",
        "edge/test_bad_input.py::test_a_query_holds_only_what_is_listed",
        "service/test_admin.py::test_sql_in_a_filter_is_data",
        "service/test_admin.py::test_a_bad_filter_is_refused",
        "service/test_admin.py::test_another_query_name_is_refused_at_the_edge",
    ),
    "K3 markup in a receipt": ("edge/test_receipts.py::test_texts_of_callers_are_texts_and_nothing_else",),
    "K4 a name of a file": ("edge/test_receipts.py::test_documents_are_named_by_us_and_cannot_do_anything",),
    "K6 a script in JSON": ("edge/test_receipts.py::test_texts_of_callers_are_texts_and_nothing_else",),
    "K7 an actor or address in a header": (
        "service/test_admin.py::test_the_actor_comes_from_the_token_and_the_request_id_from_the_edge",
        "edge/test_address_limit.py::test_an_address_is_not_what_the_caller_says",
        "edge/test_address_limit.py::test_behind_a_proxy_an_address_is_what_the_proxy_has_seen",
    ),
    # Card data that stays
    "L1 database files": (f"{_LEAKS}::test_nothing_is_left_by_a_stack_that_is_still_running", _FILES),
    "L2 logs": (
        _FILES,
        "service/test_logs.py::test_the_log_is_printable_json_lines_without_a_secret",
        "architecture/test_settings.py::test_in_production_no_library_may_write_down_what_it_is_handed",
        "architecture/test_settings.py::test_without_tls_production_listens_on_this_machine_or_where_it_is_said",
    ),
    "L3 printed messages": (
        "domain/test_secret.py::test_a_secret_is_stars_in_every_format",
        "architecture/test_tables.py::test_what_is_secret_is_marked_so_in_the_contract",
        _FILES,
    ),
    "L4 errors of the database": (
        "contract/test_store.py::test_a_fault_of_the_database_shows_no_value",
        _FILES,
    ),
    "L5 texts of exceptions": ("service/test_logs.py::test_a_fault_of_a_processor_is_told_to_nobody", _FILES),
    "L6 tracebacks and dumps": (
        "service/test_logs.py::test_the_log_is_printable_json_lines_without_a_secret",
        f"{_LEAKS}::test_a_core_dump_would_hold_nothing",
    ),
    "L7 rows of every table": (
        f"{_LEAKS}::test_nothing_is_left_by_a_stack_that_is_still_running",
        "service/test_admin.py::test_no_card_number_stays_of_what_an_administrator_asks",
        "domain/test_fingerprint.py::test_without_the_key_nobody_can_make_it",
    ),
    "L8 stored replies": (
        "architecture/test_tables.py::test_an_answer_has_no_place_for_a_secret",
        f"{_LEAKS}::test_nothing_is_left_by_a_stack_that_is_still_running",
    ),
    "L9 every encoding": (f"{_LEAKS}::test_the_search_finds_a_number_in_every_form",),
    "L10 backups": (f"{_LEAKS}::test_nothing_is_left_in_a_backup",),
    "L11 answers": (f"{_LEAKS}::test_nothing_is_left_in_any_answer",),
    # Trying cards
    "M1 one account, a hundred cards": (
        f"{_LIMITS}::test_one_account_with_many_cards_is_stopped_by_order_and_by_hour",
    ),
    "M2 a hundred accounts, one card": (f"{_LIMITS}::test_one_card_of_many_accounts_is_stopped",),
    "M3 one address, a thousand cheap orders": (
        "edge/test_address_limit.py::test_a_thousand_cheap_orders_of_one_address_are_stopped",
    ),
    "M4 cards of one bank, CVCs of one card": (
        f"{_LIMITS}::test_cvcs_of_one_card_and_cards_of_one_bank_cannot_be_gone_through",
        f"{_LIMITS}::test_of_two_hundred_calls_at_once_with_one_card_ten_are_charged",
        f"{_LIMITS}::test_of_two_hundred_cards_at_once_by_one_owner_ten_are_charged",
    ),
    "M5 decline codes": (
        f"{_LIMITS}::test_a_stolen_card_is_told_as_any_other_and_kept_as_it_is",
        "domain/test_decline_codes.py::test_of_all_that_the_sandbox_knows_six_codes_are_told",
    ),
    "M6 restarts and replicas": (
        f"{_LIMITS}::test_limits_outlive_a_restart",
        f"{_LIMITS}::test_of_two_hundred_cards_at_once_by_one_owner_ten_are_charged",
        "contract/test_attempt_limits.py::test_of_a_burst_of_one_owner_as_many_get_through_as_the_limit_says",
    ),
    "M7 one a minute": (
        "workflows/test_watch_declines.py::test_a_day_of_one_decline_a_minute_is_told",
        "service/test_card_testing.py::test_so_many_declines_are_a_line_to_alert_on",
    ),
    # Configuration
    "N1 defaults and debugging in production": (
        "architecture/test_settings.py::test_production_refuses_every_bad_setting_in_one_line_that_names_it",
        "architecture/test_settings.py::test_in_production_no_library_may_write_down_what_it_is_handed",
        "service/test_issuers.py::test_in_production_keys_come_by_https_alone",
    ),
    "N2 a role that is too mighty": ("service/test_roles.py::test_a_role_that_is_too_mighty_does_not_serve",),
    "N4 keys that change": (
        f"{_TOKENS}::test_a_rotated_key_is_taken_at_both_doors_without_a_restart",
        "local/test_oauth_flow.py::test_tokens_of_before_and_after_a_rotation_pay",
    ),
    "N4 secrets of webhooks that change": (
        "edge/test_webhooks.py::test_both_secrets_sign_while_they_overlap",
        "service/test_webhook_endpoints.py::test_a_secret_is_stored_sealed_and_its_key_can_be_changed_over",
    ),
    # Time that tells something
    "O2 signatures of webhooks take the same time": (
        "domain/test_webhook_signature.py::test_signatures_are_compared_in_constant_time",
    ),
    "O3 fingerprints take the same time": (
        "domain/test_idempotency.py::test_fingerprints_are_compared_in_constant_time",
    ),
}
# What no test here shows, and why.
_NO_CALLS_OF_PROCESSORS = "no processor calls us: each is asked"
WITHOUT: Mapping[str, str] = {
    "B7 receipts by number": "they are found by their order alone, which is B1",
    "J1 forged calls of a processor": _NO_CALLS_OF_PROCESSORS,
    "J2 old calls of a processor": _NO_CALLS_OF_PROCESSORS,
    "J3 another amount": _NO_CALLS_OF_PROCESSORS,
    "J4 an unknown charge": _NO_CALLS_OF_PROCESSORS,
    "J5 a call before its claim": _NO_CALLS_OF_PROCESSORS,
    "J6 a call that the processor does not know of": _NO_CALLS_OF_PROCESSORS,
    "J7 secrets of a processor": _NO_CALLS_OF_PROCESSORS,
    "K2 formulas in a spreadsheet": "nothing is exported as a table",
    "K5 headers in mail": "no mail is sent",
    "O1 somebody else's order, by time": "measured in `bench foreign`: a clock on a busy machine would fail a test",
    "O4 a known card, by time": "who asks has made an attempt, whose charge takes longer than any difference",
}


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("case", CASES)
def test_the_tests_of_a_case_are_there(case: str) -> None:
    assert CASES[case]
    for test in CASES[case]:
        file, _, name = test.partition("::")
        assert name in names_in(file), test


def test_no_case_is_left_out() -> None:
    expected = [("A", 20), ("B", 13), ("H", 14), ("I", 6), ("J", 7), ("K", 7), ("L", 11), ("M", 7), ("O", 4)]
    numbers = {f"{group}{number}" for group, last in expected for number in range(1, last + 1)}
    told = {case.partition(" ")[0] for case in (*CASES, *WITHOUT)}
    assert numbers | {"N1", "N2", "N4"} == told
