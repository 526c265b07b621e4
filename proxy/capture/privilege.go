package capture

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/securebits.h.
const (
	secbitNoRoot       = 1 << 0
	secbitNoRootLocked = 1 << 1
	secbitKeepCaps     = 1 << 4
)

// dropPrivileges makes the calling thread id (if not nil) and takes all its
// capabilities except, if wanted, CAP_NET_ADMIN, now and for all that it will
// execute. The system calls are made raw: the wrappers of package syscall
// would change all threads, and the others are about to vanish.
func dropPrivileges(id *identity, keepNetAdmin bool) error {
	keep := uint32(0)
	if keepNetAdmin {
		keep = 1 << unix.CAP_NET_ADMIN
	}
	has, err := effectiveCaps()
	if err != nil {
		return err
	}
	// A process without CAP_SETPCAP has to rely on no_new_privs alone.
	if has&(1<<unix.CAP_SETPCAP) != 0 {
		if err := limitCaps(keep); err != nil {
			return err
		}
	}
	if id != nil {
		if err := setIdentity(*id); err != nil {
			return err
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep, Inheritable: keep}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if keepNetAdmin {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN, 0, 0); err != nil {
			return fmt.Errorf("keep CAP_NET_ADMIN: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

func effectiveCaps() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

// limitCaps empties the bounding set but for keep, and makes uid 0 an
// ordinary one that gains nothing when it executes a program.
func limitCaps(keep uint32) error {
	for c := uintptr(0); c < 64; c++ {
		if c < 32 && keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL {
			break // beyond the kernel's last capability
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	bits := uintptr(secbitNoRoot | secbitNoRootLocked | secbitKeepCaps) // the last over setresuid
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, bits, 0, 0, 0); err != nil {
		return fmt.Errorf("set securebits: %w", err)
	}
	return nil
}

// setIdentity changes groups, gid and uid, in this order; what is right
// already is not asked for, so that a plain user can name himself.
func setIdentity(id identity) error {
	uid, gid := uintptr(id.UID), uintptr(id.GID)
	if unix.Geteuid() == int(id.UID) && unix.Getegid() == int(id.GID) && unix.Geteuid() != 0 {
		return nil
	}
	var groups unsafe.Pointer
	if len(id.Groups) > 0 {
		groups = unsafe.Pointer(&id.Groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(id.Groups)), uintptr(groups), 0); errno != 0 {
		return fmt.Errorf("set groups of uid %d: %w", id.UID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("set gid %d: %w", id.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("set uid %d: %w", id.UID, errno)
	}
	return nil
}
