#!/bin/sh
# Unpacks the archive on the second disk and runs the script in it. The last line of output tells the
# host how the script ended.
stty -F /dev/ttyS1 raw -echo
cd /
export HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
if tar -x --no-overwrite-dir --keep-directory-symlink -f /dev/vdb; then
	/var/lib/hostel-vm/script
	status=$?
else
	echo 'vm: the payload could not be unpacked'
	status=125
fi
sync
printf '\nHOSTEL-VM-EXIT:%d\n' "$status"
