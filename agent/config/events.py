"""What the agent and the startup script say in the journal: every event, its meaning, its fields.

The journal is an interface: names and fields here are what `journalctl`, log-based metrics and reports rest on. In the
journal field names are upper-case (`step` is `STEP=`), and each record also has EVENT, MESSAGE (the same for people),
PRIORITY, RUN_ID, and ATTEMPT once one is claimed. Names that end in `_s` are seconds. `spot events` prints this table.
"""

from __future__ import annotations

from dataclasses import dataclass

ONE_LINERS = {
    "everything but the trainer's own output": "journalctl -u spot-agent -t spot-agent",
    "the trainer's own output": "journalctl -u spot-agent -t spot-trainer",
    "every notice, and who told": "journalctl -u spot-agent EVENT=notice -o json --output-fields=SOURCE,CAUSE,MESSAGE",
    "was every window enough?": "journalctl -u spot-agent EVENT=window_used -o json --output-fields=LEFT_S,STEPS_LOST",
    "what the last boot saw at its end": "journalctl -u spot-agent -b -1 -n 50",
    "how long saves take": "journalctl -u spot-agent EVENT=committed -o json --output-fields=STEP,COPY_S,DURABLE_S",
    "why it stopped": "journalctl -u spot-agent EVENT=gave_up -o cat",
    "what takes the boot its time": "journalctl EVENT=boot_stage -o json --output-fields=STAGE,DURATION_MS",
    "warnings and errors only": "journalctl -u spot-agent -p warning -t spot-agent",
}
"""Questions, and the command on the VM that answers each. Two fields given are both wanted; one twice: either."""


@dataclass(frozen=True)
class EventDoc:
    """`fields`: all that the event can carry besides those that each record has."""

    meaning: str
    fields: tuple[str, ...] = ()


def _doc(meaning: str, fields: str = "") -> EventDoc:
    return EventDoc(meaning, tuple(fields.split()))


EVENTS: dict[str, EventDoc] = {
    # The agent
    "agent_started": _doc("the agent is up and knows its run, VM and bucket", "run_id vm bucket pid health_port"),
    "gave_up": _doc("the run can't go on by itself; error says why and what to do", "error"),
    "agent_failed": _doc(
        "the agent ends by a fault of its own; systemd starts it again, the trainer goes on", "error exc_info"
    ),
    "watcher_died": _doc(
        "a part of the agent has ended by a fault: systemd aborts it and starts another", "error exc_info"
    ),
    "vm_unfit": _doc("this VM can't train this run, another one may; error says why", "error"),
    "complete": _doc("the run is finished, now (result: where) or before (why)", "step result why"),
    "group_resized": _doc(
        "an instance group was asked for so many VMs: none any more, or the next stages'", "group size"
    ),
    "stage_complete": _doc(
        "a stage is done with step; here: the next one goes on in the same process, else another machine goes on",
        "stage step here",
    ),
    "border": _doc(
        "the stages of this machine are complete, and the line says so; over: the next one's go on already",
        "stage step over",
    ),
    "border_awaited": _doc(
        "this machine's stages begin with step, and the run has not come so far: it is waited for, and then the group "
        "goes to zero",
        "stage step left_s",
    ),
    "next_group_waits": _doc("the next stages' group can't be started; asked again", "error left_s"),
    "group_not_resized": _doc("that failed; by_hand is the command that does it", "group size error by_hand"),
    "handover": _doc("this agent makes way for a newer version; the trainer goes on", "step message"),
    "handover_refused": _doc("not now: a notice has come", "message"),
    "library": _doc("a warning of a library that the agent uses", "logger message exc_info"),
    "tracker_away": _doc(
        "a tracker (W&B, TensorBoard) could not be told: it is tried again, training does not wait, and the bucket "
        "keeps all",
        "tracker error",
    ),
    "cloud_log_away": _doc(
        "Cloud Logging does not take the journal; what it misses is sent later, or never where reason says so",
        "reason",
    ),
    "cloud_log_back": _doc("it takes the journal again", "seconds"),
    # Notices and the window
    "notice": _doc(
        "this VM, or the run on it, is about to stop; source: metadata, logind, sigterm, maintenance",
        "source cause detail",
    ),
    "window": _doc(
        "the window is open: seconds until the power cut, and of those before ACPI", "deadline_s warning_s step"
    ),
    "training_on": _doc("the first save is safe and there is time for more steps", "for_s step"),
    "not_staged": _doc("the trainer did not hand its state over in the window", "step why"),
    "not_committed": _doc("a staged state did not get into the bucket in the window", "step committed why"),
    "window_nearer": _doc("a further notice: the power goes earlier than was said", "deadline_s source"),
    "window_used": _doc(
        "the window is over: what is safe, what is lost, how much time was left, when each phase was done",
        "kind step_committed steps_lost seconds_lost left_s save_requested_s staged_s last_byte_s committed_s "
        "trainer_gone_s last_save_requested_s last_staged_s last_last_byte_s last_committed_s",
    ),
    "shutdown_cancelled": _doc("logind cancelled the shutdown", "message"),
    "inhibitor_lost": _doc("logind no longer waits for the agent at a shutdown; SIGTERM remains", "reason"),
    "logind_absent": _doc("no logind here, looked for again: metadata server and SIGTERM alone", "reason message"),
    "logind_lost": _doc(
        "the system bus is gone, looked for again: metadata server and SIGTERM alone", "reason message"
    ),
    "logind_back": _doc("logind is there after all: heard, and asked to wait for the agent at a shutdown", "seconds"),
    "metadata_absent": _doc("not on Google Compute Engine: no notices from there", "reason message"),
    "metadata_away": _doc("the metadata server does not answer; asked again", "path reason"),
    "metadata_back": _doc("it answers again", "path seconds"),
    "machine_unknown": _doc("it does not say which VM this is: nothing goes to Cloud Logging", "reason"),
    "machine_known": _doc("the metadata server says which VM this is, later than at the start", "vm notice_s"),
    "notice_unreadable": _doc(
        "the VM's metadata say no time of notice; the run file's counts", "attribute value reason"
    ),
    # The program
    "code_fetched": _doc("the program's code is in folder, as it was packed", "folder digest bytes seconds"),
    "environment_ready": _doc(
        "the program's own environment is in folder; source: bucket, where an earlier VM left it, or made",
        "folder key source seconds",
    ),
    "environment_kept": _doc("it is in the bucket for the next VM", "key bytes seconds"),
    "environment_not_kept": _doc("it is not: the next VM makes it anew", "key why"),
    "environment_not_fetched": _doc("what the bucket has of it can't be had: it is made anew", "key error"),
    "prepare_output": _doc("a line that the making of the environment, or the user's setup, printed", "what message"),
    # The trainer's life
    "trainer_started": _doc("a new attempt began", "pid attempt command"),
    "trainer_adopted": _doc("a restarted agent found its trainer alive and goes on with it", "pid attempt"),
    "run_file_changed": _doc(
        "the run file says other than when the adopted trainer was started: what is taken at once, and what at the "
        "trainer's next start",
        "taken later",
    ),
    "trainer_output": _doc(
        "a line that the trainer printed, cut at 4 kB; of a progress bar a state every 10 s and the last; "
        "SYSLOG_IDENTIFIER=spot-trainer",
        "message",
    ),
    "output_dropped": _doc(
        "the trainer printed more than the journal should hold: left out since the last such event were so many lines "
        "and bytes; lines of unread_bytes are not counted. The newest output is in trainer.log",
        "lines bytes unread_bytes",
    ),
    "output_lost": _doc("the trainer's output can't be read: it goes on, and its lines are not told", "error"),
    "trainer_ended": _doc("the trainer ended, and what is done about it", "cause step restart pause_s"),
    "trainer_refused": _doc("a trainer of another run, attempt or version asked for state", "why"),
    "connection_failed": _doc("the trainer's connection broke; it connects again", "error"),
    "protocol_error": _doc("the trainer said what makes no sense", "error"),
    "notice_passed_on": _doc("a program was told to save: the processes that hear the signal", "signal pids"),
    "notice_unheard": _doc(
        "no process of the program catches the signal that tells it to save: at a notice what is whole then is saved. "
        "at: start, notice; hears: SIGTERM where it is heard, and sent instead: write notice_signal: SIGTERM",
        "signal at hears",
    ),
    "left_behind": _doc(
        "the program's command has ended and left processes: goes_on, for one of them hears the notice and is the "
        "program; else they get the grace, and are ended",
        "pids goes_on",
    ),
    "scope_refused": _doc("systemd gave the trainer no scope: it dies if the agent dies", "scope reason message"),
    "trainer_not_gone": _doc("the kernel still clears a killed trainer away; the agent goes on without it", "pid why"),
    "incident": _doc(
        "the trainer ended by itself: crash, out_of_memory, hang", "kind step steps_lost seconds_lost detail"
    ),
    "spike": _doc(
        "a metric is no number any more, or far above the median of its window: nothing of after good, the last step "
        "that was as it should be, is committed; the run goes back, or stops",
        "metric step value median good",
    ),
    "rolled_back": _doc(
        "the run goes back to a checkpoint from before a spike; without: those that left the line; data: what is "
        "passed over from now on, from one place to another",
        "metric step back_to without data steps_lost",
    ),
    "spike_metric_missing": _doc(
        "what supervision.spike looks at was never logged: no spike would be seen", "metric logged"
    ),
    "fetched": _doc("what the trainer will restore is in memory; source: bucket or memory", "step source bytes"),
    "restored": _doc("the trainer has its state back; copy_s: seconds that took", "step copy_s"),
    "resumed": _doc(
        "the first step after a start: what it started from, what the interruption cost, when each phase was done",
        "attempt vm at_utc source step folder passed_over phases_s saved_utc lost_s",
    ),
    # Saving
    "committed": _doc(
        "a checkpoint is whole in the bucket; sent: bytes that were not there before; copy_s: training waited; "
        "durable_s: staged to committed; for `kind: command` step is the save's number, and program_step the program's",
        "step attempt bytes sent copy_s durable_s reason program_step",
    ),
    "save_declined": _doc("the trainer could not save just then; the next save is due as usual", "step reason why"),
    "save_failed": _doc(
        "a save did not get into the bucket; again_s: it is tried again after so many seconds, none: it is given up",
        "step reason error again_s",
    ),
    "folder_not_saved": _doc("a program's checkpoint folder could not be read", "folder error"),
    "folder_not_whole": _doc("nothing in a program's checkpoint folder is whole: not saved; why by save", "folder why"),
    "folder_goes_on": _doc(
        "a program's checkpoint folder on this disk is the newest: nothing is restored", "folder step"
    ),
    "folder_put_aside": _doc("what a folder held that the bucket lacks is kept under another name", "folder to"),
    "put_aside_removed": _doc("an older one of those is deleted: the newest `kept` stay", "folder kept"),
    "folder_not_noted": _doc("which checkpoint a folder goes on from could not be noted beside it", "folder error"),
    "folder_left_out": _doc("a link to a folder elsewhere is in no checkpoint", "folder links"),
    "folder_torn": _doc("a file was written to while it was saved: the folder is held once more", "error"),
    "milestone_taken": _doc("a milestone's name is taken by other content: it is not kept", "folder error"),
    "milestone": _doc("a checkpoint is kept for good", "step folder"),
    "retired": _doc("old checkpoints were deleted", "objects"),
    "not_retired": _doc("an old checkpoint can't be deleted (a hold, a retention policy) and stays", "name why"),
    "housekeeping_failed": _doc("old checkpoints could not be deleted, or a milestone not kept", "error"),
    "record_not_stored": _doc("an incident's record did not get into the bucket; here it is", "error record"),
    # Restoring
    "checkpoint_bad": _doc("a checkpoint did not verify; the next older one is tried", "step folder error"),
    "checkpoint_passed_over": _doc(
        "the trainer fails each time it starts from it: an older one is tried", "folder why"
    ),
    "line_unreadable": _doc("a newer version of this program goes on with the run: this VM stops", "error"),
    "bucket_waits": _doc("the bucket is away, or does not let this VM in yet; asked again", "error message"),
    "result_refused": _doc(
        "the result could not be stored; it is kept in folder, and tried again", "error folder left_s"
    ),
    "result_progress": _doc(
        "bytes of the result that are in the bucket, of size: sent now, copied there from the checkpoint, found there "
        "from an earlier try",
        "done size sent copied found",
    ),
    "result_parts_left": _doc("the result is whole, but parts it was joined from could not be deleted", "prefix why"),
    "restore_waits": _doc("the bucket is away; asked again until the deadline", "error left_s"),
    # The VM's way up: infra/stacks/fleet/runtime/startup.sh
    "boot_stage": _doc("a stage of the startup script is over; outcome: ok, failed", "stage duration_ms outcome"),
    "boot_ready": _doc("the startup script is done; uptime_ms: since the kernel started", "duration_ms uptime_ms"),
    "boot_delayed": _doc("a stage failed and is tried again: a grant takes minutes to spread", "stage"),
    "boot_failed": _doc("the VM can't train; stage says where it stopped", "stage"),
    "boot_gave_up": _doc("boots in a row failed, or a grant is missing: the group is set to zero, and why", "stage"),
    "disk_left_alone": _doc("a disk was not used as scratch, and why", "disk"),
    "bundle_refused": _doc("the bundle is not what its name says"),
}
