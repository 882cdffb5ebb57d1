"""Types of the classes of `switchover.policies`. Written by scripts/stubs.py."""

from typing import Any

from switchover.policies import Policy
from switchover.units import Number, Rate, Size, Time

class DowntimeLimit(Policy):
    """Switches over when remaining / bandwidth is at most the limit.

    It has no cap on rounds or time: it never ends for a guest that writes faster than the link carries.

    Origin: QEMU's own rule (migration.c, migration_completion; `downtime-limit`, 300 ms), on the world's
    estimate.

    Args:
        limit: Longest blackout to accept, by the estimate. In seconds. From 0 s to 33.3 min. Default 300 ms.
    """
    def __init__(self, limit: Time = 0.3) -> None: ...
    limit: Any

class MaxRounds(Policy):
    """Ends the live copy after so many rounds, whatever remains.

    It always ends.

    Origin: common; a cap beside a rule that has none.

    Args:
        rounds: Rounds of live copying, round 0 included. From 1 to 1e+09. Default 30.
        then: What then: `switchover`, `postcopy` or `abort`. Default switchover.
    """
    def __init__(self, rounds: int | str = 30, *, then: str = 'switchover') -> None: ...
    rounds: Any
    then: Any

class DirtyThreshold(Policy):
    """Switches over at a round count, at few remaining pages, or when too much was sent.

    It asks nothing of the link, and always ends.

    Origin: the constants of Xen's classic tools: 29 rounds, 50 pages, 3 x memory.

    Args:
        rounds: Rounds of live copying, round 0 included, after which it switches over. From 1 to 1e+09. Default 29.
        pages: It switches over when fewer pages remain. From 0 to 1e+12. Default 50.
        factor: It switches over when pages sent are more than this multiple of memory. From 0 to 1e+06. Default 3.
    """
    def __init__(self, rounds: int | str = 29, *, pages: int | str = 50, factor: Number = 3.0) -> None: ...
    rounds: Any
    pages: Any
    factor: Any

class TimeLimit(Policy):
    """Ends the live copy after so long, at the first round's end after it.

    It always ends.

    Origin: common; managers put such a cap on every migration.

    Args:
        limit: Time since the migration's start. In seconds. From 0 s to 277778 h. Default 1 min.
        then: What then: `switchover`, `postcopy` or `abort`. Default abort.
    """
    def __init__(self, limit: Time = 60.0, *, then: str = 'abort') -> None: ...
    limit: Any
    then: Any

class AnyOf(Policy):
    """Asks each policy in turn and does what the first that fires says. All of them see every round.

    It ends as its parts do: it always ends if one of them does, and never ends otherwise.

    Origin: ours.

    Args:
        policies: The policies, the most important first. Default [].
    """
    def __init__(self, policies: Any = ...) -> None: ...
    policies: Any

class Qemu(Policy):
    """QEMU's default: switches over when remaining <= bandwidth x limit.

    Bandwidth is what was sent in the last window over the window's length; before the first window has
    ended only a guest with nothing remaining is switched over. There is no cap on rounds or time: it
    never ends for a guest that writes faster than the link carries.

    Origin: QEMU, `downtime-limit`; until 10.0 the comparison was strict.

    Args:
        limit: Longest blackout to accept (`downtime-limit`, 300 ms). In seconds. From 0 s to 33.3 min. Default 300 ms.
        window: Least length of the window in which bandwidth is measured (100 ms). In seconds. From 1 ms to 1 min. Default 100 ms.
        strict: Whether remaining must be less than the threshold, as before QEMU 10.1. Default False.
    """
    def __init__(self, limit: Time = 0.3, *, window: Time = 0.1, strict: bool | str = False) -> None: ...
    limit: Any
    window: Any
    strict: Any

class QemuAvailBandwidth(Policy):
    """QEMU's rule with the bandwidth of the blackout given by the user.

    QEMU lifts the rate limit at switchover, so a migration held to a low rate has more to spend in the
    blackout than its windows show. Like `qemu` it never ends for a guest that writes too fast.

    Origin: QEMU 8.2, `avail-switchover-bandwidth`.

    Args:
        bandwidth: Bandwidth that the blackout will have; 0 means the bandwidth of the last window, as `qemu`. In bytes per second. From 0 B/s to 1000 TB/s. Default 0 B/s.
        limit: Longest blackout to accept (`downtime-limit`, 300 ms). In seconds. From 0 s to 33.3 min. Default 300 ms.
        window: Least length of the window in which bandwidth is measured (100 ms). In seconds. From 1 ms to 1 min. Default 100 ms.
    """
    def __init__(self, bandwidth: Rate = 0, *, limit: Time = 0.3, window: Time = 0.1) -> None: ...
    bandwidth: Any
    limit: Any
    window: Any

class QemuAutoConverge(Policy):
    """QEMU's rule, with a throttle that grows while the guest writes too fast.

    At a round's end more than `period` after the last one that was counted: if the bytes dirtied since
    then are more than `trigger` of the bytes sent, count one. At every second count, which need not
    follow the first directly, throttle: first `initial`, then `increment` more, at most `most`, never
    less again. All vCPUs are held back alike: in slices of 10 ms, each followed by a sleep of
    10 ms x p / (1 - p). It never ends for a guest that writes too fast even so.

    QEMU 9.2 and later also force a harvest when 5 s pass without one while throttling; a world whose
    rounds are longer decides later than QEMU would.

    Origin: QEMU, `auto-converge`, `throttle-trigger-threshold`, `cpu-throttle-*`.

    Args:
        limit: Longest blackout to accept (`downtime-limit`, 300 ms). In seconds. From 0 s to 33.3 min. Default 300 ms.
        trigger: Share of the bytes sent that may be dirtied meanwhile (`throttle-trigger-threshold`, 50 %). From 0.01 to 1. Default 0.5.
        initial: First throttle, as a share of the vCPUs' time (`cpu-throttle-initial`, 20 %). From 0.01 to 0.99. Default 0.2.
        increment: Step of the throttle (`cpu-throttle-increment`, 10 %). From 0.01 to 0.99. Default 0.1.
        most: Greatest throttle (`max-cpu-throttle`, 99 %). From 0.01 to 0.99. Default 0.99.
        tail_slow: Whether a step is no longer than what would be enough (`cpu-throttle-tailslow`). Default False.
        period: A period is longer than this (1 s). In seconds. From 0 s to 1 h. Default 1 s.
    """
    def __init__(self, limit: Time = 0.3, *, trigger: Number = 0.5, initial: Number = 0.2, increment: Number = 0.1, most: Number = 0.99, tail_slow: bool | str = False, period: Time = 1.0) -> None: ...
    limit: Any
    trigger: Any
    initial: Any
    increment: Any
    most: Any
    tail_slow: Any
    period: Any

class QemuDirtyLimit(Policy):
    """QEMU's rule, with a quota of dirty bytes for each vCPU once the guest writes too fast.

    Where auto-converge would throttle for the first time, each vCPU gets the quota, once; [`WriterQuota`]
    is how it is kept. vCPUs that do not write are not slowed. It never ends for a guest whose quotas
    together are more than the link carries.

    Origin: QEMU 8.1, capability `dirty-limit`, `vcpu-dirty-limit`, `x-vcpu-dirty-limit-period`.

    Args:
        limit: Longest blackout to accept (`downtime-limit`, 300 ms). In seconds. From 0 s to 33.3 min. Default 300 ms.
        quota: What each vCPU may dirty (`vcpu-dirty-limit`, 1 MiB/s). In bytes per second. From 1 B/s to 1000 TB/s. Default 1.05 MB/s.
        trigger: Share of the bytes sent that may be dirtied meanwhile (`throttle-trigger-threshold`, 50 %). From 0.01 to 1. Default 0.5.
        period: A period is longer than this (1 s). In seconds. From 0 s to 1 h. Default 1 s.
    """
    def __init__(self, limit: Time = 0.3, *, quota: Rate = 1048576.0, trigger: Number = 0.5, period: Time = 1.0) -> None: ...
    limit: Any
    quota: Any
    trigger: Any
    period: Any

class Xen(Policy):
    """Xen's classic rule for the last round, and its rate control. It always ends.

    The live copy ends after a round that sent more pages than the round before it while the rate was at
    its maximum; or when `rounds` are done; or when a round's sent and skipped pages are fewer than
    `pages`; or when more than `factor` x memory was sent. The rate of round 0 is `rate`; that of a later
    round is the dirty rate of the round before it and `step` more, at most `most_rate`.

    Variants: ia64 has `rounds` 3; builds without adaptive saving, and one later version, have
    `adaptive` off, which drops the first clause and the rate control.

    Origin: Xen, xc_linux_save, xc_domain_save and xc_hvm_save; Clark et al., NSDI 2005.

    Args:
        rounds: Rounds of live copying, round 0 included (29; 3 on ia64). From 1 to 1e+09. Default 29.
        pages: Fewer pages than this are left to the blackout (50). From 0 to 1e+12. Default 50.
        factor: Most that is sent, as a multiple of memory (3). From 0 to 1e+06. Default 3.
        adaptive: Whether the rate is controlled and a round that did not shrink at full rate is the last. Default True.
        rate: Rate of round 0 (100 Mbit/s). In bytes per second. From 1 B/s to 1000 TB/s. Default 12.5 MB/s.
        step: What a round's rate is above the dirty rate of the round before it (50 Mbit/s). In bytes per second. From 0 B/s to 1000 TB/s. Default 6.25 MB/s.
        most_rate: Greatest rate (500 Mbit/s). In bytes per second. From 1 B/s to 1000 TB/s. Default 62.5 MB/s.
    """
    def __init__(self, rounds: int | str = 29, *, pages: int | str = 50, factor: Number = 3.0, adaptive: bool | str = True, rate: Rate = 12500000.0, step: Rate = 6250000.0, most_rate: Rate = 62500000.0) -> None: ...
    rounds: Any
    pages: Any
    factor: Any
    adaptive: Any
    rate: Any
    step: Any
    most_rate: Any

class XenLibxl(Policy):
    """The rule of Xen's later library: few pages remain, or enough rounds are done. It always ends.

    Origin: Xen, libxenguest's default pre-copy policy behind libxl.

    Args:
        pages: Fewer pages than this are left to the blackout (50). From 0 to 1e+12. Default 50.
        rounds: Rounds of live copying, round 0 included (5). From 1 to 1e+09. Default 5.
    """
    def __init__(self, pages: int | str = 50, *, rounds: int | str = 5) -> None: ...
    pages: Any
    rounds: Any

class NoProgress(Policy):
    """Acts when remaining is no smaller than after the round before.

    A round counts when its remaining is not less than the one before's by more than `margin`; `times`
    such rounds in a row, and it acts. With `times` 1 it always ends; with more, a guest that rises and
    falls may keep it going.

    Origin: the oldest stop rule of pre-copy (Nelson et al., USENIX ATC 2005; Xen's at full rate).

    Args:
        times: Rounds without progress in a row. From 1 to 1e+06. Default 1.
        margin: Share by which remaining must fall to be progress; at 0 any fall is. From 0 to 0.99. Default 0.
        then: What then: `switchover`, `postcopy` or `abort`. Default switchover.
    """
    def __init__(self, times: int | str = 1, *, margin: Number = 0.0, then: str = 'switchover') -> None: ...
    times: Any
    margin: Any
    then: Any

class Fraction(Policy):
    """Switches over when remaining <= alpha x memory, whatever the link.

    It never ends for a guest whose writable working set is larger than that.

    Origin: Aldhalaan and Menasce's analytic models of pre-copy; the default is ours.

    Args:
        alpha: Share of memory that may remain. From 0 to 1. Default 0.01.
    """
    def __init__(self, alpha: Number = 0.01) -> None: ...
    alpha: Any

class LocalMinimum(Policy):
    """Switches over at a low of remaining once it has stopped falling: the smart stop.

    Once the last of `window` rounds remains no less than the first of them, the next round that remains
    no more than any of the `window` rounds before it is a local minimum: switch over there. It always
    ends: as long as no such round comes, the least of a window can only rise, and memory bounds it.

    Origin: CloudNet (Wood et al., VEE 2011); the default is ours.

    Args:
        window: Rounds that are looked at. From 2 to 1000. Default 5.
    """
    def __init__(self, window: int | str = 5) -> None: ...
    window: Any

class OvirtLegacy(Policy):
    """A limit that grows exponentially up to its greatest value.

    Value i of n, in milliseconds: offset + base^i, with offset = most / n and
    base = (most - offset)^(1 / (n - 1)); the one value `most` if n is 1. Value i is set i waits after the
    start, a wait being `delay` x GiB / n, but no longer than `most_wait`. It never ends for a guest that
    does not fit the last value.

    Origin: oVirt's vdsm, before its named policies (`migration_downtime`, `migration_downtime_steps`,
    `migration_downtime_delay`).

    Args:
        most: Greatest limit (500 ms). In seconds. From 1 ms to 33.3 min. Default 500 ms.
        steps: Number of values (10). From 1 to 1000. Default 10.
        delay: Time over which the values are spread, for each GiB of memory (75 s). In seconds. From 0 s to 278 h. Default 1.25 min.
        most_wait: Longest wait between two values (60 s). In seconds. From 0 s to 277778 h. Default 1 min.
    """
    def __init__(self, most: Time = 0.5, *, steps: int | str = 10, delay: Time = 75, most_wait: Time = 60) -> None: ...
    most: Any
    steps: Any
    delay: Any
    most_wait: Any

class OvirtMinimalDowntime(Policy):
    """100 ms; when more than 1, 2, 3, 4, 6 rounds have passed: 150, 200, 300, 400, 500 ms; then abort.

    oVirt calls the rounds stalling, but counts all of them, stalled or not, from the first that it
    sees, which is round 0. Each round takes one step; the abort follows in the round after the last
    limit. It always ends.

    Origin: oVirt engine, policy "Minimal downtime"; vdsm's convergence schedule.

    Args:
        auto_converge: Whether QEMU's auto-converge is on beside it, with its defaults. Default True.
    """
    def __init__(self, auto_converge: bool | str = True) -> None: ...
    auto_converge: Any

class OvirtSuspend(Policy):
    """The steps of `ovirt-minimal-downtime`, then 5000 ms, then abort. It always ends.

    oVirt has XBZRLE on beside it: choose that codec.

    Origin: oVirt engine, policy "Suspend workload if needed".

    Args:
        auto_converge: Whether QEMU's auto-converge is on beside it, with its defaults. Default True.
    """
    def __init__(self, auto_converge: bool | str = True) -> None: ...
    auto_converge: Any

class OvirtPostCopy(Policy):
    """100 ms; when more than 1, 2 rounds have passed: 150, 200 ms; then post-copy; then abort.

    It always ends.

    Origin: oVirt engine, policy "Post-copy migration".

    Args:
        auto_converge: Whether QEMU's auto-converge is on beside it, with its defaults. Default False.
    """
    def __init__(self, auto_converge: bool | str = False) -> None: ...
    auto_converge: Any

class OvirtVeryLarge(Policy):
    """300 ms; after more than 1, 2, 3, 4, 6 rounds: 400, 500, 700, 1000, 1500 ms; then 5000 ms; then abort.

    It always ends.

    Origin: oVirt engine, policy "Very large VMs".

    Args:
        auto_converge: Whether QEMU's auto-converge is on beside it, with its defaults. Default False.
    """
    def __init__(self, auto_converge: bool | str = False) -> None: ...
    auto_converge: Any

class Nova(Policy):
    """A limit that grows linearly, and a time-out; both by the size of the guest. It always ends.

    With base = most / steps and offset = (most - base) / steps, at `delay` x GiB x i the limit is
    base + offset x i, for i from 0 to `steps`. After `completion` x GiB it aborts, or is forced.

    Origin: OpenStack Nova, `live_migration_downtime`, `_downtime_steps`, `_downtime_delay`,
    `_completion_timeout` and `_timeout_action`.

    Args:
        most: Greatest limit (500 ms). In seconds. From 1 ms to 33.3 min. Default 500 ms.
        steps: Steps to it (10). From 1 to 1000. Default 10.
        delay: Time between two steps, for each GiB (75 s). In seconds. From 0 s to 278 h. Default 1.25 min.
        completion: Time-out, for each GiB (800 s). In seconds. From 0 s to 278 h. Default 13.3 min.
        then: What then: `abort`; forced by `switchover` (a pause) or `postcopy`. Default abort.
        disks: Disks that are moved along, which count as memory does. In bytes. From 0 B to 909495 TiB. Default 0 B.
    """
    def __init__(self, most: Time = 0.5, *, steps: int | str = 10, delay: Time = 75, completion: Time = 800, then: str = 'abort', disks: Size = 0) -> None: ...
    most: Any
    steps: Any
    delay: Any
    completion: Any
    then: Any
    disks: Any

class Proxmox(Policy):
    """Doubles the limit when remaining has grown, or is zero, more than five times.

    Remaining is looked at every `poll`, and every `poll_near` once the link carries it within a second.
    It is read inside rounds too, where it falls: each harvest makes it grow. What fits the limit is
    switched over. It never ends for a guest whose remaining stays the same at each look, or does not fit
    `most`; with looks between rounds no guest of less than 2000 s of link time is such.

    Origin: Proxmox VE, qemu-server's migration; `migrate_downtime`.

    Args:
        initial: Limit to begin with (`migrate_downtime`, 100 ms). In seconds. From 1 ms to 33.3 min. Default 100 ms.
        most: Greatest limit (2000 s). In seconds. From 1 ms to 33.3 min. Default 33.3 min.
        times: Times that are borne (5). From 0 to 1e+06. Default 5.
        poll: Time between two looks (1 s). In seconds. From 0 s to 1 h. Default 1 s.
        poll_near: The same near the end (100 ms). In seconds. From 0 s to 1 h. Default 100 ms.
    """
    def __init__(self, initial: Time = 0.1, *, most: Time = 2000, times: int | str = 5, poll: Time = 1, poll_near: Time = 0.1) -> None: ...
    initial: Any
    most: Any
    times: Any
    poll: Any
    poll_near: Any

class KubevirtLegacy(Policy):
    """Aborts when remaining has not decreased for a time, or the whole takes too long. It always ends.

    When the whole takes too long it goes post-copy if allowed, else pauses if allowed, else aborts. Until
    then what fits QEMU's limit of 300 ms is switched over.

    Origin: KubeVirt, `progressTimeout`, `completionTimeoutPerGiB`, `allowPostCopy`,
    `allowWorkloadDisruption`.

    Args:
        progress_timeout: Time without a decrease below the least remaining so far (150 s). In seconds. From 0 s to 277778 h. Default 2.5 min.
        completion_timeout: Time-out, for each GiB of memory (150 s). In seconds. From 0 s to 278 h. Default 2.5 min.
        allow_post_copy: Whether it may go post-copy. Default False.
        allow_pause: Whether it may pause the guest for what remains. Default False.
    """
    def __init__(self, progress_timeout: Time = 150, *, completion_timeout: Time = 150, allow_post_copy: bool | str = False, allow_pause: bool | str = False) -> None: ...
    progress_timeout: Any
    completion_timeout: Any
    allow_post_copy: Any
    allow_pause: Any

class KubevirtDowntime(Policy):
    """KubeVirt's time-outs with a limit that grows in steps once some rounds are done. It always ends.

    The limit is `initial` at once. When `start_after` rounds are done a timer starts; each time
    `cooldown` has passed the limit grows by (most - initial) / steps, up to `most`. The first step is
    taken from QEMU's own default of 300 ms, not from `initial`.

    Origin: KubeVirt, VEP 291: `initialMs`, `steps`, `startAfterIteration`, `cooldownSeconds`,
    `maxDowntimeMs`; its time-outs are those of `kubevirt-legacy`.

    Args:
        initial: Limit to begin with (150 ms). In seconds. From 0 s to 33.3 min. Default 150 ms.
        most: Greatest limit (900 ms to 1050 ms in its texts). In seconds. From 0 s to 33.3 min. Default 1.05 s.
        steps: Steps from the first to the greatest (7). From 1 to 1e+06. Default 7.
        start_after: Rounds, round 0 included, before the timer starts (3). From 0 to 1e+09. Default 3.
        cooldown: Least time between two steps (10 s). In seconds. From 0 s to 278 h. Default 10 s.
        progress_timeout: Time without a decrease below the least remaining so far (150 s). In seconds. From 0 s to 277778 h. Default 2.5 min.
        completion_timeout: Time-out, for each GiB of memory (150 s). In seconds. From 0 s to 278 h. Default 2.5 min.
        allow_post_copy: Whether it may go post-copy. Default False.
        allow_pause: Whether it may pause the guest for what remains. Default False.
    """
    def __init__(self, initial: Time = 0.15, *, most: Time = 1.05, steps: int | str = 7, start_after: int | str = 3, cooldown: Time = 10, progress_timeout: Time = 150, completion_timeout: Time = 150, allow_post_copy: bool | str = False, allow_pause: bool | str = False) -> None: ...
    initial: Any
    most: Any
    steps: Any
    start_after: Any
    cooldown: Any
    progress_timeout: Any
    completion_timeout: Any
    allow_post_copy: Any
    allow_pause: Any

class KubevirtStall(Policy):
    """Finds out that remaining no longer falls, waits for a low, and then does what is allowed.

    **Stall.** Each round's end is a record of time and remaining. Records that are new minima wait in a
    queue; `progress_timeout` later they leave it, and the least of those that left is what remaining is
    held against: it has stalled when it is no more than `margin` below. Nothing has stalled before a
    record has left.

    **Patience.** From the stall on the best remaining is sought: at first the least known, after
    `progress_timeout` the least seen since the stall, then the next least after each `decay` of that
    patience. A round within `margin` of the best acts; any round does if lows are not searched for.

    **Act.** The estimate is remaining over an average of bandwidth, which is sampled every 400 ms and
    weighs its newest sample by `alpha`. If it does not fit before `completion_factor` x the completion
    time-out, wait: the link may have dropped. Post-copy if allowed; else, if disruption is allowed, stop
    hard, by a limit of 2000 s; else, if the estimate is at most `precopy_possible_factor` x
    `max_downtime`, set the limit to `max_downtime`, and abort if that does not lead to a switchover
    within `switchover_timeout`; else abort.

    **Completion.** After `completion_timeout` x GiB: post-copy if allowed and it fits, a hard stop if
    allowed, else abort. So it always ends. Until then the limit is QEMU's 300 ms, or `max_downtime` if
    that is less.

    Origin: KubeVirt, VEP 248, with its knobs and defaults; post-copy counts as a disruption there.

    Args:
        margin: Share by which remaining must fall to be progress, and near the best (4 %; 2 to 12 % argued for). From 0 to 0.5. Default 0.04.
        progress_timeout: Age at which a record leaves the queue, and the first patience (60 s). In seconds. From 1 ms to 277778 h. Default 1 min.
        alpha: Weight of the newest sample in the average of bandwidth (0.4). From 0.001 to 1. Default 0.4.
        precopy_possible_factor: How far the estimate may be above `max_downtime` for pre-copy to be tried, as a factor (1.5). From 1 to 1000. Default 1.5.
        decay: What patience is multiplied by each time it ends (0.5). From 0 to 1. Default 0.5.
        search_local_minima: Whether to wait for a low. Default True.
        max_downtime: Longest blackout to accept where the workload may not be disrupted (900 ms). In seconds. From 0 s to 33.3 min. Default 900 ms.
        switchover_timeout: Time that a limit is given to lead to a switchover (60 s). In seconds. From 0 s to 277778 h. Default 1 min.
        completion_timeout: Time-out, for each GiB of memory (150 s). In seconds. From 0 s to 278 h. Default 2.5 min.
        completion_factor: By how much the estimate may overrun the completion time-out, as a factor (2). From 1 to 1000. Default 2.
        allow_disruption: Whether the workload may be disrupted, by post-copy or a long stop. Default False.
        allow_post_copy: Whether post-copy is among the disruptions. Default False.
        vfio: Whether the guest has VFIO devices, which rules post-copy out. Default False.
    """
    def __init__(self, margin: Number = 0.04, *, progress_timeout: Time = 60, alpha: Number = 0.4, precopy_possible_factor: Number = 1.5, decay: Number = 0.5, search_local_minima: bool | str = True, max_downtime: Time = 0.9, switchover_timeout: Time = 60, completion_timeout: Time = 150, completion_factor: Number = 2.0, allow_disruption: bool | str = False, allow_post_copy: bool | str = False, vfio: bool | str = False) -> None: ...
    margin: Any
    progress_timeout: Any
    alpha: Any
    precopy_possible_factor: Any
    decay: Any
    search_local_minima: Any
    max_downtime: Any
    switchover_timeout: Any
    completion_timeout: Any
    completion_factor: Any
    allow_disruption: Any
    allow_post_copy: Any
    vfio: Any

class CloudHypervisor(Policy):
    """Switches over when the estimated downtime of the next delta fits; cancels after a time-out.

    A delta is what a round leaves to be sent. It always ends.

    Origin: Cloud Hypervisor, `downtime_ms`, `timeout_s` and `timeout_strategy` of send-migration.

    Args:
        downtime: Longest blackout to accept, by the estimate (`downtime_ms`, 300 ms). In seconds. From 0 s to 33.3 min. Default 300 ms.
        timeout: Time since the migration's start (`timeout_s`, 3600 s). In seconds. From 0 s to 277778 h. Default 1 h.
        on_timeout: What then: `cancel` it, or `ignore` the downtime and switch over. Default cancel.
    """
    def __init__(self, downtime: Time = 0.3, *, timeout: Time = 3600, on_timeout: str = 'cancel') -> None: ...
    downtime: Any
    timeout: Any
    on_timeout: Any

class CloudHypervisorThrottle(Policy):
    """Cloud Hypervisor's rule with its own auto-converge.

    After `after` deltas the throttle grows by `step` every `every` rounds, whatever the guest does. vCPUs
    are paused in slices of 100 ms: at 99 % they run 1 ms of each. It always ends.

    Origin: the throttling branch of Cloud Hypervisor, whose steps are not configurable there.

    Args:
        after: Deltas before the first step (4). From 0 to 1e+09. Default 4.
        every: Rounds from one step to the next (2). From 1 to 1e+09. Default 2.
        step: Share of the vCPUs' time that a step adds (10 %). From 0.01 to 0.99. Default 0.1.
        most: Greatest throttle (99 %). From 0.01 to 0.99. Default 0.99.
        downtime: Longest blackout to accept, by the estimate (300 ms). In seconds. From 0 s to 33.3 min. Default 300 ms.
        timeout: Time since the migration's start (3600 s). In seconds. From 0 s to 277778 h. Default 1 h.
        on_timeout: What then: `cancel` it, or `ignore` the downtime and switch over. Default cancel.
    """
    def __init__(self, after: int | str = 4, *, every: int | str = 2, step: Number = 0.1, most: Number = 0.99, downtime: Time = 0.3, timeout: Time = 3600, on_timeout: str = 'cancel') -> None: ...
    after: Any
    every: Any
    step: Any
    most: Any
    downtime: Any
    timeout: Any
    on_timeout: Any

class LibvirtTimeout(Policy):
    """Suspends the guest or goes post-copy after a time, or goes post-copy after the first pass.

    A guest that is suspended writes no more, so that what remains is its blackout. Until then what fits
    the limit is switched over. Without `timeout` and `after_precopy` it never ends for a guest that
    writes too fast.

    Origin: virsh migrate, `--timeout` with `--timeout-suspend` or `--timeout-postcopy`,
    `--postcopy-after-precopy`.

    Args:
        timeout: Time since the migration's start; none by default. In seconds. From 0 s to 277778 h.
        then: What then: `suspend` or `postcopy`. Default suspend.
        after_precopy: Whether to go post-copy at the end of round 0. Default False.
        limit: Longest blackout to accept before that (QEMU's 300 ms). In seconds. From 0 s to 33.3 min. Default 300 ms.
    """
    def __init__(self, timeout: Time | None = None, *, then: str = 'suspend', after_precopy: bool | str = False, limit: Time = 0.3) -> None: ...
    timeout: Any
    then: Any
    after_precopy: Any
    limit: Any

class Drafter(Policy):
    """Switches over after some cycles in a row with few dirty blocks. It always ends.

    There is a least and a greatest number of cycles, and a pause between them.

    A round is a cycle if it ends at least `pause` after the cycle before it: that stands for the pause
    between cycles, which a policy cannot make. Dirty blocks are counted as the bytes that remain; pages
    that are scattered over blocks dirty more of them than that.

    Origin: Drafter's peer and its Silo storage: `maxDirtyBlocks` 200 of 64 KiB, `minCycles` 5,
    `maxCycles` 20, `cycleThrottle` 500 ms.

    Args:
        dirty: Remaining must be under this (200 blocks of 64 KiB). In bytes. From 0 B to 909495 TiB. Default 12.5 MiB.
        in_a_row: Cycles in a row with so little. From 1 to 1e+09. Default 5.
        least: Least number of cycles. From 0 to 1e+09. Default 5.
        most: Greatest number of cycles. From 1 to 1e+09. Default 20.
        pause: Least time between the ends of two cycles (500 ms). In seconds. From 0 s to 1 h. Default 500 ms.
    """
    def __init__(self, dirty: Size = 13107200, *, in_a_row: int | str = 5, least: int | str = 5, most: int | str = 20, pause: Time = 0.5) -> None: ...
    dirty: Any
    in_a_row: Any
    least: Any
    most: Any
    pause: Any

class LxdPredump(Policy):
    """Switches over after so many rounds, or when enough pages need no re-sending. It always ends.

    Origin: LXD, `migration.incremental.memory.iterations` and `.goal`.

    Args:
        rounds: Rounds of live copying, round 0 included (10). From 1 to 1e+09. Default 10.
        goal: Share of memory's pages that need no re-sending (70 %). From 0 to 1. Default 0.7.
    """
    def __init__(self, rounds: int | str = 10, *, goal: Number = 0.7) -> None: ...
    rounds: Any
    goal: Any

class Simgrid(Policy):
    """Switches over when remaining <= bandwidth x downtime, or after a time-out.

    Without a time-out it never ends for a guest that writes too fast.

    Origin: SimGrid's live-migration plug-in.

    Args:
        downtime: Longest blackout to accept (30 ms). In seconds. From 0 s to 33.3 min. Default 30 ms.
        timeout: Time after which it switches over anyway; none by default. In seconds. From 0 s to 277778 h.
    """
    def __init__(self, downtime: Time = 0.03, *, timeout: Time | None = None) -> None: ...
    downtime: Any
    timeout: Any

class Handbook(Policy):
    """Iterates until the dirty rate falls under a threshold or enough rounds are done.

    Then the guest is stopped for the last pages. It always ends.

    Origin: the cloud-server handbook, which gives no numbers; the defaults are ours.

    Args:
        rate: Dirty rate under which it switches over. In bytes per second. From 0 B/s to 1000 TB/s. Default 10 MB/s.
        rounds: Rounds of live copying, round 0 included, after which it does so anyway. From 1 to 1e+09. Default 30.
    """
    def __init__(self, rate: Rate = 10000000.0, *, rounds: int | str = 30) -> None: ...
    rate: Any
    rounds: Any

class VmotionSdps(Policy):
    """Delays each first write to a page once a round would not shrink.

    A round does not shrink when its dirty rate is at least its send rate, pages sent over time taken. Then
    each first write to a page is held up so long that `writers`, together, dirty `share` of the send
    rate: with D and T pages per second as they are and as they are to be, the delay grows by
    writers x (1 / T - 1 / D), at most to `most_delay`. It never shrinks. What fits the limit is switched
    over. It never ends for a guest that writes too fast even so.

    Origin: VMware vSphere 5, which sleeps vCPUs for milliseconds and aims at a switchover under 1 s;
    `share` and `most_delay` are ours.

    Args:
        limit: Longest blackout to accept, by the estimate (1 s). In seconds. From 0 s to 33.3 min. Default 1 s.
        writers: Threads that write: the guest's vCPUs. From 1 to 1e+06. Default 1.
        share: Dirty rate to reach, as a share of the send rate. From 0.01 to 0.99. Default 0.8.
        most_delay: Longest delay of one write. In seconds. From 0 s to 10 s. Default 100 ms.
    """
    def __init__(self, limit: Time = 1.0, *, writers: int | str = 1, share: Number = 0.8, most_delay: Time = 0.1) -> None: ...
    limit: Any
    writers: Any
    share: Any
    most_delay: Any
