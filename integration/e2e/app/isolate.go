package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isolate runs a program in network and mount namespaces of its own, with a /run of its
// own, so that the mesh in it has the machine to itself: isolate PROGRAM ARG...
func isolate(_ context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	runtime.LockOSThread() // namespaces are a thread's, and exec keeps the caller's
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := os.Mkdir("/run/netns", 0o755); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return unix.Exec(program, args, os.Environ())
}

// links tells the network's links, by type and name, for each line that it reads. It keeps
// the network alive meanwhile.
func links(_ context.Context, _ []string) error {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		found, err := netlink.LinkList()
		if err != nil {
			return err
		}
		names := []string{}
		for _, l := range found {
			names = append(names, l.Type()+" "+l.Attrs().Name)
		}
		if err := tell(names); err != nil {
			return err
		}
	}
	return nil
}
