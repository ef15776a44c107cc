#!/bin/bash
# Parts of a long run at the same time. What a part prints goes to a file and is shown whole when it has ended; a line a
# minute says how far the others are. Source it, queue parts with `part`, and call `run_parts`.
part_titles=() part_commands=() part_pids=() part_states=() part_began=()
part_place=$(mktemp -d)
trap 'rm -rf "$part_place"' EXIT

# part TITLE COMMAND...: COMMAND may be a function. Exit status 1 says that what failed is worth another try, alone.
part() {
    part_titles+=("$1") part_states+=(waits) part_pids+=(0) part_began+=(0)
    shift
    part_commands+=("$(printf '%q ' "$@")")
}

# A part is a process group of its own, so that an interrupt can be sent to all of it; without job control it would ignore that.
start_part() { # start_part INDEX [FILE-FOR-OUTPUT]
    say "${part_titles[$1]}: starts"
    part_states[$1]=runs part_began[$1]=$SECONDS
    set -m
    (
        set +m  # all that it starts stays in its group
        status=0
        [ -z "${2-}" ] || exec >"$2" 2>&1
        eval "${part_commands[$1]}" || status=$?
        times >"$part_place/$1.times"
        exit $status
    ) </dev/null &
    part_pids[$1]=$!
    set +m
}

end_part() {
    local status=0
    wait "${part_pids[$1]}" || status=$?
    part_states[$1]=$status
    say "${part_titles[$1]}: exit $status, $((SECONDS - part_began[$1])) s (of processors: $(tail -qn 1 "$part_place/$1.times" 2>/dev/null || :))"
    [ ! -e "$part_place/$1" ] || { cat "$part_place/$1"; rm "$part_place/$1"; }
}

tell_progress() {
    local i line=''
    for i in "${!part_titles[@]}"; do
        [ "${part_states[i]}" = runs ] && [ -e "$part_place/$i" ] || continue
        line+="; ${part_titles[i]}: $((SECONDS - part_began[i])) s $(grep -o '\[ *[0-9]*%\]' "$part_place/$i" | tail -n 1 || :)"
    done
    [ -z "$line" ] || echo "   ${line#; }"
}

# Whether a part is there that has processes still.
parts_run() {
    local i
    for i in "${!part_titles[@]}"; do
        [ "${part_states[i]}" != runs ] || ! kill -0 -- "-${part_pids[i]}" 2>/dev/null || return 0
    done
    return 1
}

# Tests clean up behind themselves when they get an interrupt; what is there a quarter of a minute later is asked by TERM, and
# killed at last.
interrupt_parts() {
    trap '' INT TERM
    local i signal patience
    for signal in INT TERM KILL; do
        for i in "${!part_titles[@]}"; do
            [ "${part_states[i]}" != runs ] || kill -$signal -- "-${part_pids[i]}" 2>/dev/null || :
        done
        patience=30
        while parts_run && [ $patience -gt 0 ]; do sleep 0.5; patience=$((patience - 1)); done
    done
    for i in "${!part_titles[@]}"; do [ "${part_states[i]}" != runs ] || end_part "$i"; done
    echo 'interrupted' >&2
    exit 130
}

# run_queue LANES INDEX...: so many at a time, in this order. With one lane the output is not held back.
run_queue() {
    local lanes=$1 i running told=$SECONDS output
    shift
    trap interrupt_parts INT TERM
    while :; do
        running=0
        for i in "${!part_titles[@]}"; do
            [ "${part_states[i]}" = runs ] || continue
            if kill -0 "${part_pids[i]}" 2>/dev/null; then running=$((running + 1)); else end_part "$i"; fi
        done
        while [ $running -lt "$lanes" ] && [ $# -gt 0 ]; do
            [ "$lanes" -gt 1 ] && output=$part_place/$1 || output=''
            start_part "$1" "$output"
            running=$((running + 1))
            shift
        done
        [ $running -gt 0 ] || break
        [ $((SECONDS - told)) -lt 60 ] || { told=$SECONDS; tell_progress; }
        sleep 1
    done
    trap - INT TERM
}

# run_parts LANES: all parts, then once more what failed in them, one part after the other with `again` set, on a machine that
# is quiet now. The exit status is 1 when a part has failed.
run_parts() {
    local failed=() status=0 i
    again=''
    run_queue "$1" "${!part_titles[@]}"
    for i in "${!part_titles[@]}"; do
        case ${part_states[i]} in
            0) ;;
            1) failed+=("$i") ;;
            *) echo "FAILED: ${part_titles[i]}"; status=1 ;;
        esac
    done
    [ ${#failed[@]} -gt 0 ] || return $status
    say 'what failed, once more'
    again=1
    run_queue 1 "${failed[@]}"
    # These tests are of a whole machine: one that fails, and then passes alone, is told here and has to be looked at, but it is
    # not what stops a change.
    for i in "${failed[@]}"; do
        if [ "${part_states[i]}" = 0 ]; then
            echo "UNSTABLE: the tests above failed at first and passed alone (${part_titles[i]})"
        else
            echo "FAILED: ${part_titles[i]}"; status=1
        fi
    done
    return $status
}
