package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// helper is the program that tests start in namespaces.
func helper(args []string) error {
	switch args[0] {
	case "dial": // ADDR MARK SOURCE
		return helperDial(args[1], args[2], args[3])
	case "verify": // ADDR...
		var addrs []netip.Addr
		for _, a := range args[1:] {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		err := Verify(context.Background(), addrs)
		if errors.Is(err, ErrNotCaptured) {
			fmt.Print("not captured")
			return nil
		}
		if err == nil {
			fmt.Print("captured")
		}
		return err
	case "listen": // ADDR
		l, err := net.Listen("tcp", args[1])
		if err != nil {
			return err
		}
		fmt.Println("listening")
		return l.Close()
	case "nft":
		c, err := nftables.New()
		if err != nil {
			return err
		}
		return deleteTable(c, tableFamily(), captureTable)
	case "unshare": // a user namespace of its own must not help the app
		return helperNested()
	case "lease": // STATEDIR KEY: holds a lease until killed
		cfg := DefaultNetworkConfig()
		cfg.StateDir, cfg.Log = args[1], slog.New(slog.DiscardHandler)
		l, err := (&Network{cfg: cfg, dir: args[1]}).Allocate(args[2])
		if err != nil {
			return err
		}
		fmt.Println(l.V4)
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	case "accept": // on descriptor 3
		l, err := net.FileListener(os.NewFile(3, "listener"))
		if err != nil {
			return err
		}
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		ifs, err := net.Interfaces()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c, "uid %d, %d interface, lo up %t", os.Getuid(), len(ifs), ifs[0].Flags&net.FlagUp != 0)
		return err
	case "spawn": // starts a sleeper with Command, says its pid, waits
		cmd, err := HostNamespace(slog.New(slog.DiscardHandler)).Command(context.Background(), Exec{Argv: []string{"sleep", "1000"}, Stdout: os.Stdout})
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		fmt.Println(cmd.Process.Pid)
		return cmd.Wait()
	}
	return fmt.Errorf("no helper %q", args[0])
}

func helperNested() error {
	self, err := os.Open(selfNetNS)
	if err != nil {
		return err
	}
	defer self.Close()
	// The child has all capabilities in a user namespace of its own.
	p, err := os.StartProcess("/proc/self/exe", []string{"x", "nft"}, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		},
	})
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err == nil && !state.Success() {
		err = errors.New(state.String())
	}
	return err
}

func helperDial(addr, mark, source string) error {
	d := net.Dialer{Timeout: 2 * time.Second}
	d.SetMultipathTCP(false)
	if source != "" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 0))
	}
	m, err := strconv.ParseInt(mark, 0, 32)
	if err != nil {
		return err
	}
	if m != 0 {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(m)) })
			return errors.Join(cerr, err)
		}
	}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Println(readAnswer(c))
	return nil
}

func readAnswer(c net.Conn) string {
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(io.LimitReader(c, 1<<20))
	if err != nil {
		return err.Error()
	}
	return string(b)
}
