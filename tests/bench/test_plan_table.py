"""The table of plans in the documentation is what the planner does."""

from bench import plan_table


def test_the_page_is_up_to_date():
    page = plan_table.PAGE.read_text(encoding="utf-8")
    assert plan_table.written() == page, "python -m bench.plan_table brings it up to date"
    assert len(plan_table.PROBLEMS) == 30
