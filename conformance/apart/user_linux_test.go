// SPDX-License-Identifier: Apache-2.0

package apart

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// asUser does something as a user without privileges and without groups but its own, or,
// if real is set, as root whose real ids alone are that user's. It is a system call or few:
// only the thread is that user's.
func asUser(uid int, real bool, do func() error) error {
	runtime.LockOSThread()
	set := func(call, id uintptr) error {
		keep := ^uintptr(0)
		args := [3]uintptr{keep, id, keep}
		if real {
			args = [3]uintptr{id, keep, keep}
		}
		if _, _, e := unix.RawSyscall(call, args[0], args[1], args[2]); e != 0 {
			return e
		}
		return nil
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return e
	}
	if err := errors.Join(set(unix.SYS_SETRESGID, uintptr(uid)), set(unix.SYS_SETRESUID, uintptr(uid))); err != nil {
		return err // the thread stays locked, and ends with the goroutine
	}
	err := do()
	if back := errors.Join(set(unix.SYS_SETRESUID, 0), set(unix.SYS_SETRESGID, 0)); back != nil {
		return errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return err
}
