"""Requests made up from the server's own OpenAPI schema, right and wrong ones: no 500, no hang, answers as documented."""

from __future__ import annotations

import warnings

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from models.test_any_order import any_prior
from small_server import AnyText, bench, pipeline, serving

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module", params=["reading order", "any order"])
def served(request):
    model = any_prior(image_vocab=27) if request.param == "any order" else None
    with serving([bench(pipeline(AnyText(20), model))]) as own:
        yield own


@pytest.mark.parametrize("each", [16, pytest.param(350, marks=pytest.mark.slow)])
def test_requests_made_up_from_the_schema_are_answered_as_it_says(served, each):
    """`each` right and as many wrong requests for every operation."""
    described = schemathesis.openapi.from_url(f"{served.address}/openapi.json")
    asked, statuses = 0, {}
    for found in described.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            cases = operation.as_strategy(generation_mode=mode)

            def check(case):
                nonlocal asked
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    answer = case.call(base_url=served.address, timeout=20)
                    case.validate_response(answer, checks=CHECKS)
                asked += 1
                statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1

            from hypothesis import given

            run = settings(
                max_examples=each, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )(given(cases)(check))  # fmt: skip
            try:
                run()
            except Exception as error:
                if type(error).__name__ in ("Unsatisfiable", "InvalidArgument"):
                    continue  # nothing can be wrong with a request that has no parts
                raise
    assert asked >= 100 if each == 16 else asked >= 2000, statuses
    assert not {status for status in statuses if status >= 500}
    assert statuses.get(200, 0) > 10
    assert httpx.get(f"{served.address}/ready").status_code == 200
