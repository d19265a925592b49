"""Which keys owe calls to the store: bounded by keys, clients beside addresses, closed when nothing is owed."""

from __future__ import annotations

from partner import NOW_US
from quotas import MONTHLY, NGINX

from authz.core.address import ANONYMOUS, BUCKETS_MAX
from authz.core.quota import admit
from authz.edge.store import ledger
from authz.edge.store.ledger import AT_ONCE, Ledger
from authz.edge.store.script import Plan
from authz.policy.limits import Limit


def owing(accounts: Ledger, key: str, limits: tuple[Limit, ...] = (MONTHLY,)) -> Plan:
    plan = Plan(key.encode(), limits)
    account = accounts.account(key, plan)
    account.share(limits)
    account.admit(None, 0, NOW_US)
    return plan


def test_full_ledger_forgets_the_oldest_and_no_address_makes_it_forget_a_client() -> None:
    accounts = Ledger(keys_max=10)
    plans = [owing(accounts, f"client-{number}") for number in range(10)]
    for number in range(100):
        owing(accounts, f"address:{number}")
        assert len(accounts) <= 20
    assert accounts.forgotten == 90
    assert all(plan.account is not None for plan in plans)
    owing(accounts, "client-10")
    assert plans[0].account is None
    assert len(accounts) == 20


def test_addresses_have_a_small_room() -> None:
    accounts = Ledger()
    for number in range(BUCKETS_MAX + 100):
        owing(accounts, f"{ANONYMOUS}{number}")
    assert (len(accounts), accounts.forgotten) == (BUCKETS_MAX, 100)


def test_every_key_gets_its_turn() -> None:
    accounts = Ledger()
    plans = {owing(accounts, f"client-{number}") for number in range(3 * AT_ONCE)}
    found: list[Plan] = []
    while len(found) < len(plans):
        turn = accounts.due(0)
        assert 0 < len(turn) <= AT_ONCE
        found += turn
    assert set(found) == plans


def test_account_that_owes_nothing_is_closed() -> None:
    accounts = Ledger()
    plan = owing(accounts, "a")
    assert plan.account is not None
    debits = plan.account.send((MONTHLY,), 0)
    assert accounts.due(0) == []  # on its way
    plan.account.confirm((MONTHLY,), debits, debits, 0)
    assert accounts.due(0) == []
    assert (len(accounts), plan.account) == (0, None)


def test_plan_that_replaces_another_takes_its_account_over_but_not_what_was_told() -> None:
    accounts = Ledger()
    plan, edited = owing(accounts, "a"), Plan(b"a", (NGINX, MONTHLY))
    assert plan.account is not None
    plan.account.tell(admit({}, (MONTHLY,), NOW_US)[0], 0)
    accounts.follow("a", edited)
    assert (plan.account, accounts.due(0)) == (None, [edited])
    assert edited.account is not None
    assert edited.account.seed((NGINX, MONTHLY), 0, NOW_US) is None
    accounts.follow("b", edited)
    assert len(accounts) == 1


def test_bounds_are_those_that_are_documented() -> None:
    assert (ledger.KEYS_MAX, AT_ONCE) == (100_000, 256)
