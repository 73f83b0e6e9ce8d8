#!/usr/bin/env bash
# Runs inside the virtual machine (see scripts/test-vm.sh): the Docker backend on cgroup v2, with an engine that caps the
# writable root of a container (overlay2 on XFS with project quotas).
# Test programs are in /opt/hostel/tests. HOSTEL_VM_CASES has parts of the names of the cases that are run; all are,
# unless it is set.
set -uo pipefail

export HOSTEL_DOCKER_OWN=1 HOSTEL_DOCKER_DRIVER=xfs HOSTEL_CASE_SECONDS=900

programs() {
	local program cases status=0
	for program in /opt/hostel/tests/*; do
		for cases in ${HOSTEL_VM_CASES:-::}; do
			echo "---- $(basename "$program") $cases"
			"$program" --test-threads 2 "$cases" || status=1
		done
	done
	return $status
}
export -f programs

systemctl is-system-running --wait
uname -r
dockerd --version
exec /opt/hostel/with-docker.sh bash -c 'docker info && programs'
