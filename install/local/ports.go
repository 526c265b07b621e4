package local

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/heddle-mesh/heddle/proxy/capture"
)

// endpoint is what a project opens on the machine.
type endpoint struct {
	address string
	fix     string // what to do if somebody else has it, but for stopping that
}

const metricsFix = ", or choose another address: metrics in heddle.yaml"

// published lists what the user wants to have on the machine.
func (o *Options) published() []endpoint {
	var out []endpoint
	for _, w := range o.Config.workloads() {
		if !w.First {
			continue
		}
		for _, p := range w.Service.Publish {
			if address, _, err := parsePublish(p); err == nil {
				out = append(out, endpoint{address, fmt.Sprintf(", or publish another port: services.%s.publish in heddle.yaml", w.Entry)})
			}
		}
	}
	if o.Config.Jaeger {
		out = append(out, endpoint{jaegerAddress, ", or do without a Jaeger: jaeger in heddle.yaml"})
	}
	if o.Config.Metrics != "" {
		out = append(out, endpoint{o.Config.Metrics, metricsFix})
	}
	return out
}

// CheckPorts reports every address that somebody else has taken, and who.
func (o *Options) CheckPorts() error {
	endpoints := o.published()
	if o.Capture != capture.Rootless { // there the supervisor's own are in a network of its own
		const fix = "; another project's ends with 'heddle down -p NAME'"
		endpoints = append(endpoints, endpoint{agentAddress, fix}, endpoint{metricsAddress, fix})
		if o.Config.Jaeger {
			endpoints = append(endpoints, endpoint{otlpAddress, fix})
		}
	}
	var errs []error
	for _, e := range endpoints {
		l, err := net.Listen("tcp", e.address)
		if err != nil {
			errs = append(errs, e.inUse(err))
			continue
		}
		l.Close()
	}
	return errors.Join(errs...)
}

// inUse says of an endpoint that cannot be opened who has its address.
func (e endpoint) inUse(err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("open %s: %w", e.address, err)
	}
	return fmt.Errorf("%s is in use by %s: stop it%s", e.address, holder(e.address), e.fix)
}

// holder names the process that listens on an address, by proc(5): the socket's inode in
// net/tcp, then the process with a descriptor of that inode. Of another user's process
// only the user is known to who is not root.
func holder(address string) string {
	want, err := netip.ParseAddrPort(address)
	if err != nil {
		return "another process"
	}
	var sockets []socket
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		sockets = append(sockets, listening(table, want)...)
	}
	for _, s := range sockets {
		if name := processOf("socket:[" + s.inode + "]"); name != "" {
			return name
		}
	}
	if len(sockets) == 0 {
		return "another process"
	}
	name := sockets[0].uid
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return fmt.Sprintf("a process of user %s (as root, 'ss -ltnp' shows which)", name)
}

// socket is a line of net/tcp.
type socket struct{ inode, uid string }

// listening finds the sockets that keep others from listening on an address.
func listening(table string, want netip.AddrPort) []socket {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []socket
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != "0A" { // TCP_LISTEN
			continue
		}
		has, err := parseLocal(fields[1])
		if err != nil || has.Port() != want.Port() {
			continue
		}
		if a, b := has.Addr(), want.Addr().Unmap(); a == b || a.IsUnspecified() || b.IsUnspecified() {
			out = append(out, socket{inode: fields[9], uid: fields[7]})
		}
	}
	return out
}

// parseLocal reads an address of net/tcp: words of 32 bits in the machine's order, in hex.
func parseLocal(text string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	octets, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for word := range slices.Chunk(octets, 4) {
		slices.Reverse(word) // Heddle's Envoys are for little-endian machines only
	}
	ip, ok := netip.AddrFromSlice(octets)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address", text)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(number)), nil
}

// processOf finds the process with a descriptor that links to target.
func processOf(target string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == target {
			pid := strings.Split(link, "/")[2]
			command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			words := strings.Split(string(command), "\x00")
			return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(strings.Join(words[:min(2, len(words))], " ")), pid)
		}
	}
	return ""
}
