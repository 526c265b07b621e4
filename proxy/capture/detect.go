package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Detect finds the best mode that works here, by doing in short what the
// mode does, and says why in a sentence for people.
func Detect(ctx context.Context) (Mode, string) {
	if InRootless() {
		return Rootless, "this process is in a user namespace already"
	}
	rootErr := probeTransparent()
	if rootErr == nil {
		return Transparent, "root may create network namespaces and capture traffic in them"
	}
	userErr := runProbe(ctx)
	if userErr == nil {
		return Rootless, "a plain user may create user and network namespaces here"
	}
	return Explicit, fmt.Sprintf("traffic cannot be captured: %v; and without root: %v", rootErr, userErr)
}

func probeTransparent() error {
	has, err := effectiveCaps()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	for name, c := range map[string]uint{"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_SETUID": unix.CAP_SETUID} {
		if has&(1<<c) == 0 {
			return fmt.Errorf("root without %s", name)
		}
	}
	return probeNetwork(Transparent)
}

// probeNetwork makes in a network namespace that vanishes afterwards what a
// mesh network and its workloads need.
func probeNetwork(m Mode) error {
	ns, err := newNetNS()
	if err != nil {
		return err
	}
	defer ns.Close()
	err = inNetNS(int(ns.Fd()), func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "probe0"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("create a bridge: %w", err)
		}
		attrs.Name = "probe1"
		veth := netlink.NewVeth(attrs)
		veth.PeerName = "probe2"
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("create a veth pair: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return DefaultRules(m).apply(int(ns.Fd()))
}

// runProbe does the same in a child that a plain user's mode would start.
func runProbe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe", ChildCommand, "probe", "rootless")
	cmd.Stderr, cmd.SysProcAttr = &stderr, rootlessAttr()
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(stderr.String()); text != "" {
		err = errors.New(strings.TrimPrefix(text, ChildCommand+": "))
	}
	return fmt.Errorf("user namespaces do not work: %w%s", err, userNamespaceSwitches(os.ReadFile))
}

// probeRootless runs inside that child.
func probeRootless() error {
	if err := probeNetwork(Rootless); err != nil {
		return err
	}
	if err := privateMounts(); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", ChildCommand, "noop", "")
	cmd.SysProcAttr = rootlessAttr()
	cmd.SysProcAttr.Cloneflags = 0
	nestUser(cmd.SysProcAttr, identity{UID: nobody, GID: nobody})
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("nest a user namespace: %w", err)
	}
	return nil
}

// userNamespaceSwitches names what is set against user namespaces, with the
// command that changes it.
func userNamespaceSwitches(read func(string) ([]byte, error)) string {
	var out strings.Builder
	for _, s := range []struct{ name, bad, good, who string }{
		{"kernel.unprivileged_userns_clone", "0", "1", "Debian's and Arch's switch"},
		{"user.max_user_namespaces", "0", "15000", "the kernel's limit"},
		{"kernel.apparmor_restrict_unprivileged_userns", "1", "0", "AppArmor's restriction (Ubuntu since 23.10), or load a profile for heddle that has `userns,`"},
	} {
		v, err := read("/proc/sys/" + strings.ReplaceAll(s.name, ".", "/"))
		if err == nil && strings.TrimSpace(string(v)) == s.bad {
			fmt.Fprintf(&out, "; %s=%s forbids it: `sudo sysctl -w %s=%s` lifts %s", s.name, s.bad, s.name, s.good, s.who)
		}
	}
	if out.Len() == 0 {
		return " (no sysctl forbids it; in a container its seccomp profile or masked /proc may)"
	}
	return out.String()
}
