"""What a managed instance group does, and so the local one: the facts that the run rests on."""

from __future__ import annotations

from infra.local.group import NO_CAPACITY, Policy, Template
from tests.local_group.conftest import STUBBORN, World


def test_a_vm_that_is_gone_comes_back_under_its_name_from_its_template(world: World) -> None:
    template = Template(attributes={"key": "value"})
    world.make(template=template)
    world.vms[0].switch_off()
    world.after(1)
    first, second = world.vms
    assert (first.name, first.template) == (second.name, second.template) == ("g-0000", template)
    assert world.running == ["g-0000"]


def test_a_preemption_is_notice_then_power_button_then_power_cut(world: World) -> None:
    world.make(template=Template(attributes={STUBBORN: "yes"}, notice_s=120.0))
    world.after(10)
    vm = world.vms[0]
    assert world.controller.preempt()
    assert (vm.noticed, vm.is_running()) == (True, True)
    world.after(149)  # deaf to the button: 120 s of notice, and 30 s from G2 to G3
    assert vm.is_running()
    assert world.shown() == [("g-0000", "STOPPING", "NONE")]
    world.after(1)
    assert not vm.is_running()
    assert world.running == ["g-0000"]


def test_without_a_notice_duration_notice_and_power_button_come_together(world: World) -> None:
    world.make()
    world.controller.preempt()
    assert (world.vms[0].noticed, world.vms[0].is_running()) == (True, False)


def test_a_vm_that_is_going_is_not_preempted_again(world: World) -> None:
    world.make(template=Template(notice_s=120.0))
    assert world.controller.preempt()
    world.after(60)
    assert not world.controller.preempt(notice_s=0.0)
    assert world.vms[0].is_running()


def test_failed_health_checks_do_not_count_until_the_initial_delay_is_over(world: World) -> None:
    world.make(policy=Policy(initial_delay_s=300, check_every_s=10, unhealthy_after=3))
    world.vms[0].healthy = False
    world.after(319)
    assert len(world.vms) == 1
    world.after(2)  # failures at 300, 310 and 320 s
    assert (len(world.vms), world.running) == (2, ["g-0000"])


def test_the_first_healthy_answer_ends_the_initial_delay(world: World) -> None:
    world.make(policy=Policy(initial_delay_s=300, check_every_s=10, unhealthy_after=3))
    world.after(10)
    world.vms[0].healthy = False
    world.after(29)
    assert len(world.vms) == 1
    world.after(2)  # failures at 20, 30 and 40 s
    assert len(world.vms) == 2


def test_failures_that_are_not_in_a_row_recreate_nothing(world: World) -> None:
    world.make(policy=Policy(check_every_s=10, unhealthy_after=3))
    for healthy in (True, False, False, True, False, False, True):
        world.vms[0].healthy = healthy
        world.after(10)
    assert len(world.vms) == 1


def test_the_recreated_vm_has_an_initial_delay_of_its_own(world: World) -> None:
    world.make(policy=Policy(initial_delay_s=300, check_every_s=10))
    world.after(1000)
    world.vms[0].switch_off()
    world.after(1)
    world.vms[1].healthy = False
    world.after(290)
    assert len(world.vms) == 2


def test_a_stock_out_is_told_in_list_errors_and_in_the_last_attempt_and_ends(world: World) -> None:
    world.make(policy=Policy(retry_s=30))
    world.controller.exhaust(100)
    world.vms[0].switch_off()
    world.after(90)
    assert world.running == []
    codes = [item["error"]["code"] for item in world.group.errors]
    assert codes == [NO_CAPACITY] * 3
    assert world.group.errors[0]["instanceActionDetails"] == {"action": "RECREATING", "instance": "g-0000"}
    assert world.group.instances["g-0000"].errors[0]["code"] == NO_CAPACITY
    world.after(40)
    assert world.running == ["g-0000"]
    assert world.group.instances["g-0000"].errors == []


def test_a_stock_out_takes_no_vm_that_runs(world: World) -> None:
    world.make()
    world.controller.exhaust(100)
    world.after(50)
    assert world.running == ["g-0000"]


def test_a_zone_outage_takes_all_vms_without_a_word_and_lets_none_come_back_before_its_end(world: World) -> None:
    world.make(size=2)
    world.controller.lose_zone(60)
    assert (world.running, [vm.noticed for vm in world.vms]) == ([], [False, False])
    world.after(59)
    assert world.running == []
    world.after(31)
    assert world.running == ["g-0000", "g-0001"]


def test_in_bulk_mode_all_vms_of_a_new_size_are_made_or_none(world: World) -> None:
    world.zone.room = 3
    world.make(size=4, policy=Policy(target_size_mode="BULK"))
    world.after(300)
    assert world.running == []
    world.zone.room = 4
    world.after(31)
    assert len(world.running) == 4


def test_otherwise_as_many_are_made_as_there_is_room_for(world: World) -> None:
    world.zone.room = 3
    world.make(size=4)
    assert len(world.running) == 3


def test_a_repair_in_bulk_mode_concerns_its_own_vm(world: World) -> None:
    world.make(size=2, policy=Policy(target_size_mode="BULK"))
    for vm in world.vms:
        vm.switch_off()
    world.zone.room = 1
    world.after(1)
    assert len(world.running) == 1


def test_a_repair_takes_the_newest_template_only_where_the_policy_says_so(world: World) -> None:
    for update, version in ((False, 1), (True, 2)):
        controller = world.make(policy=Policy(update_on_repair=update))
        controller.template = Template(version=2)
        world.vms[-1].switch_off()
        world.after(1)
        assert world.vms[-1].template.version == version


def test_a_group_that_is_resized_to_zero_stops_its_vms_and_makes_no_more(world: World) -> None:
    world.make(size=2)
    world.group.target_size = 0
    world.after(60)
    assert (world.running, world.group.instances, len(world.vms)) == ([], {}, 2)


def test_a_smaller_size_keeps_the_first_vms_and_a_larger_one_adds(world: World) -> None:
    world.make(size=3)
    world.group.target_size = 1
    world.after(1)
    assert world.running == ["g-0000"]
    world.group.target_size = 2
    world.after(1)
    assert world.running == ["g-0000", "g-0001"]


def test_a_vm_that_waits_for_room_is_forgotten_when_it_is_not_wanted_any_more(world: World) -> None:
    world.zone.room = 0
    world.make()
    world.group.target_size = 0
    world.after(1)
    world.zone.room = 1
    world.after(60)
    assert (world.group.instances, world.vms) == ({}, [])


def test_recreate_instances_stops_a_vm_and_brings_it_back(world: World) -> None:
    world.make()
    world.group.recreate.append("g-0000")
    world.after(1)
    assert (len(world.vms), world.running, world.group.recreate) == (2, ["g-0000"], [])


def test_a_group_is_calm_only_while_all_its_vms_are_healthy_and_stay(world: World) -> None:
    controller = world.make(template=Template(notice_s=120.0))
    assert not controller.calm, "it was not healthy yet"
    world.after(10)
    assert controller.calm
    world.vms[0].healthy = False
    world.after(10)
    assert not controller.calm
    world.vms[0].healthy = True
    world.after(10)
    assert controller.calm
    controller.preempt()
    assert not controller.calm
