# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# lib.sh: what every peer script shares. Sourced, never run.
#
# A peer script sets NAME (the prefix of the lines it prints), PORT (its default
# port), VERSION ("debian" for that of its packages) and PACKAGES (what it needs
# of Debian's), defines peer_install, peer_start and peer_check, and ends with
# `peer_main "$@"`. A tool, as opposed to a server, has port 0 and no peer_start.
#
#   $OPT   what is installed, one folder per peer and version; never written to
#          after the install
#   $RUN   what one running instance owns: pid, env, log, data
#
# PEERS_HOME moves both. PEER_INSTANCE=b runs a second instance beside the first.
set -euo pipefail

PEERS_HOME=${PEERS_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/outrigger-peers}
PEERS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PEER=$(basename "$0")
RUN=$PEERS_HOME/run/$PEER${PEER_INSTANCE:+-$PEER_INSTANCE}
LOG=$RUN/log
DATA=$RUN/data

# The signal that ends a peer politely; PEER_SIGNAL=KILL makes a crash of a stop.
STOP_SIGNAL=TERM

# Small heaps and a quick start: these are peers in tests, not servers in service.
# shellcheck disable=SC2034
JAVA_OPTS=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError
	-Djava.net.preferIPv4Stack=true -Djava.awt.headless=true -Dfile.encoding=UTF-8 "-Djava.io.tmpdir=$DATA/tmp")

say() { printf '%s: %s\n' "$PEER" "$*" >&2; }
die() { say "$*"; exit 1; }

# ---- install ---------------------------------------------------------------

# apt_get PACKAGE...: installs those Debian packages that are missing, and lets
# none of them start a service.
apt_get() {
	local missing=() p policy=/usr/sbin/policy-rc.d made_policy='' sudo='' rc=0
	for p in "$@"; do
		[[ $(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || missing+=("$p")
	done
	((${#missing[@]})) || return 0
	((EUID == 0)) || sudo='sudo -n'
	# shellcheck disable=SC2206
	local apt=($sudo env DEBIAN_FRONTEND=noninteractive nice apt-get -qq -o DPkg::Lock::Timeout=300)
	say "installing ${missing[*]} from Debian's packages"
	if [[ ! -e $policy ]]; then
		printf '#!/bin/sh\nexit 101\n' | $sudo install -m 755 /dev/stdin $policy
		made_policy=yes
	fi
	{ "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } \
		>"$PEERS_HOME/apt.log" 2>&1 || rc=$?
	[[ -z $made_policy ]] || $sudo rm -f $policy
	((rc == 0)) || { tail -20 "$PEERS_HOME/apt.log" >&2; die "apt-get failed"; }
}

# pip_get FOLDER REQUIREMENT...: Python packages in a folder of their own.
pip_get() {
	local folder=$1; shift
	PIP_ROOT_USER_ACTION=ignore nice python3 -m pip install -q --disable-pip-version-check --no-compile \
		--target "$folder" "$@" >"$STAGE/pip.log" 2>&1 || { tail -n 20 "$STAGE/pip.log" >&2; die "pip failed"; }
}

# go_get PACKAGE@VERSION: a Go program, in $STAGE.
go_get() {
	GOBIN=$STAGE nice go install "$1" >"$STAGE/go.log" 2>&1 ||
		{ tail -n 20 "$STAGE/go.log" >&2; die "go install failed"; }
}

# maven_get FOLDER POM [ARGUMENT...]: the jars that a pom depends on.
maven_get() {
	local folder=$1 pom=$2; shift 2
	nice mvn -q -B -ntp -Dstyle.color=never -f "$pom" dependency:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory="$folder" "$@" >"$pom.log" 2>&1 ||
		{ tail -n 40 "$pom.log" >&2; die "Maven failed"; }
}

# java_build FOLDER NAME: src/NAME, its jars and its classes, in FOLDER.
java_build() {
	local folder=$1 src=$PEERS_DIR/src/$2
	mkdir -p "$folder/classes"
	cp "$src/pom.xml" "$folder/pom.xml" # Maven writes beside its pom; the source may be read-only
	maven_get "$folder/lib" "$folder/pom.xml"
	nice javac -parameters -encoding UTF-8 -cp "$folder/lib/*" -d "$folder/classes" "$src"/*.java >&2
	find "$src" '(' -name '*.yml' -o -name logback.xml ')' -exec cp {} "$folder/classes/" \;
}

# install_once: sees that the Debian packages are there, and runs peer_install in
# a fresh folder that becomes $OPT when it succeeds, unless $OPT is there. A
# changed recipe or source gets a new $OPT. One install at a time, for Maven's
# and apt's sake.
install_once() {
	local stamp t=$SECONDS
	mkdir -p "$PEERS_HOME/opt" "$PEERS_HOME/run"
	apt_get "${PACKAGES[@]}"
	stamp=$({
		declare -f peer_install
		[[ ! -d $PEERS_DIR/src/$PEER ]] || find "$PEERS_DIR/src/$PEER" -type f -print0 | sort -z | xargs -0 cat
	} | sha256sum | cut -c1-8)
	OPT=$PEERS_HOME/opt/$PEER-$VERSION-$stamp
	[[ ! -d $OPT ]] || return 0
	exec 9>"$PEERS_HOME/lock"
	flock 9
	if [[ ! -d $OPT ]]; then
		STAGE=$(mktemp -d "$PEERS_HOME/opt/.$PEER-XXXXXX")
		trap 'rm -rf "$STAGE"' EXIT
		peer_install
		chmod 755 "$STAGE"
		mv "$STAGE" "$OPT"
		trap - EXIT
		say "installed $VERSION in $((SECONDS - t)) s"
	fi
	exec 9>&-
}

# ---- ports -----------------------------------------------------------------

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

ports_free() { # ports_free FIRST COUNT
	local i
	for ((i = 0; i < $2; i++)); do
		! port_open $(($1 + i)) || return 1
	done
}

# pick_ports COUNT [PORT]: sets PORT to the first of COUNT free ports in a row:
# the one asked for, or else the default one, or else (and for 0) any below the
# ephemeral range.
pick_ports() {
	local try
	if [[ ${2:-0} != 0 ]]; then
		PORT=$2
		ports_free "$PORT" "$1" || die "one of the ports $PORT to $((PORT + $1 - 1)) is taken"
		return
	fi
	[[ ${2:-} != 0 ]] && ports_free "$PORT" "$1" && return
	for ((try = 0; try < 100; try++)); do
		PORT=$((25000 + RANDOM % 7000))
		! ports_free "$PORT" "$1" || return 0
	done
	die "no $1 free ports in a row"
}

# ---- processes -------------------------------------------------------------

# A pid file holds the pid and the start time, so that a number used again by
# the system is not taken for ours.
started_at() { [[ -r /proc/$1/stat ]] && sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

alive() { # alive [NAME]
	local pid start f=$RUN/${1:-main}.pid
	[[ -r $f ]] && read -r pid start <"$f" && [[ -n $start && $(started_at "$pid") == "$start" ]] &&
		! grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null
}

# launch [-n NAME] COMMAND...: in the background, in a session of its own, with
# nothing of the caller's left open. The command is run only after its parent
# has gone: PyPI's Envoy asks for a SIGTERM at its parent's end
# (PR_SET_PDEATHSIG), which would be the end of this script.
launch() {
	local name=main
	[[ $1 != -n ]] || { name=$2; shift 2; }
	local log=$LOG
	[[ $name == main ]] || log=$RUN/$name.log
	(
		parent=$BASHPID
		# shellcheck disable=SC2016
		setsid nohup bash -c '
			while [[ $(cut -d" " -f4 /proc/$$/stat) == "$0" ]]; do sleep 0.01; done
			exec "$@"' "$parent" "$@" >"$log" 2>&1 </dev/null 9>&- &
		printf '%s %s\n' $! "$(started_at $!)" >"$RUN/$name.pid"
	)
}

# has PATTERN: whether standard input has it; reads to the end, for a curl before
# it would fail where grep -q hangs up.
has() { grep "$@" >/dev/null; }

# within SECONDS COMMAND...: whether the command succeeds in time.
within() {
	local end=$((SECONDS + $1)); shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || return 1
		sleep 0.1
	done
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds. A dead process
# or a late one is an error that shows the end of the log.
wait_for() {
	local limit=$1 what=$2 end=$((SECONDS + $1)); shift 2
	until "$@" >/dev/null 2>&1; do
		alive || fail_start "ended before $what"
		((SECONDS < end)) || fail_start "no $what within $limit s"
		sleep 0.1
	done
}

fail_start() {
	say "$1; the end of $LOG:"
	tail -n 40 "$LOG" >&2 || true
	stop_all
	exit 1
}

# stop_one NAME: by pid, then by the session that launch made for it.
stop_one() {
	local pid f=$RUN/$1.pid i
	if alive "$1"; then
		read -r pid _ <"$f"
		kill -"${PEER_SIGNAL:-$STOP_SIGNAL}" "$pid" 2>/dev/null || true
		for ((i = 0; i < 150; i++)); do
			alive "$1" || break
			sleep 0.1
		done
		if alive "$1"; then
			say "$1 ($pid) is still there after 15 s: killed"
		fi
		kill -KILL -- "-$pid" 2>/dev/null || true # what is left of its session
	fi
	rm -f "$f"
}

stop_all() {
	local f
	stop_one main
	for f in "$RUN"/*.pid; do
		[[ ! -e $f ]] || stop_one "$(basename "$f" .pid)"
	done
	rm -f "$RUN/env"
}

# publish KEY=VALUE...: what `start` prints, and `env` prints again. A value that
# a shell would not take as it is comes quoted.
publish() {
	local kv
	for kv in "$@" "PID=$(cut -d' ' -f1 "$RUN/main.pid")"; do
		[[ $kv =~ ^[A-Za-z0-9_./:@=?,%+-]*$ ]] || kv=${kv%%=*}=$(printf %q "${kv#*=}")
		printf '%s_%s\n' "$NAME" "$kv"
	done >"$RUN/env"
}

# rss: KiB resident in the processes of this instance and all below them.
rss() {
	ps -eo pid=,ppid=,rss= | awk -v roots="$(cut -d' ' -f1 "$RUN"/*.pid | tr '\n' ' ')" '
		{ parent[$1] = $2; size[$1] = $3 }
		END {
			split(roots, r, " "); for (i in r) root[r[i]]
			for (p in size) for (q = p; q > 1; q = parent[q]) if (q in root) { sum += size[p]; break }
			print sum + 0
		}'
}

# ---- the commands ----------------------------------------------------------

peer_main() {
	local verb=${1:-help}
	shift || true
	case $verb in
	install) install_once ;;
	start)
		[[ $PORT != 0 ]] || die "not a server: nothing to start"
		install_once
		if alive; then cat "$RUN/env"; return; fi
		stop_all # what a crash has left
		[[ -n ${PEER_KEEP:-} ]] || rm -rf "$RUN"
		mkdir -p "$DATA/tmp"
		peer_start "$@"
		cat "$RUN/env"
		;;
	stop) stop_all ;;
	version)
		[[ $VERSION == debian ]] && dpkg-query -W -f='${Version} (Debian)\n' "${PACKAGES[0]}" || echo "$VERSION"
		;;
	env) alive || die "not running"; cat "$RUN/env" ;;
	rss) alive || die "not running"; rss ;;
	log) cat "$LOG" ;;
	check)
		install_once
		if [[ $PORT != 0 ]]; then # a server, not a tool
			alive || die "not running"
			# shellcheck disable=SC1091
			. "$RUN/env"
		fi
		trap '(($? == 0)) || say "check failed"' EXIT
		peer_check
		say "check passed"
		;;
	*)
		if declare -F "peer_$verb" >/dev/null; then
			install_once
			mkdir -p "$DATA/tmp"
			"peer_$verb" "$@"
		else
			sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
			[[ $verb == help ]] || die "no command '$verb'"
		fi
		;;
	esac
}
