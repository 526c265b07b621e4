package capture

import (
	"fmt"
	"os"
	"strings"
)

// Mode says how a workload's traffic gets to its Envoy.
type Mode int

const (
	// Explicit captures nothing: the app is told its proxy's addresses.
	Explicit Mode = iota
	// Rootless captures inside a user namespace; Envoy's own sockets are
	// told apart by their mark (DefaultProxyMark), as only one uid exists there.
	Rootless
	// Transparent captures as root; Envoy is told apart by its uid
	// (DefaultProxyUID).
	Transparent
	// Pod is for the sidecar of a Kubernetes pod, which finds a network namespace and rules
	// in it (PodRules) that others made, and runs as DefaultProxyUID itself.
	Pod
)

// Ports and identities that the rules and the generated Envoy bootstrap share.
const (
	DefaultOutboundPort = 15001
	DefaultInboundPort  = 15006
	DefaultDNSPort      = 53
	// DefaultProxyUID is the uid that Envoy runs as in mode Transparent.
	DefaultProxyUID = 1337
	// DefaultProxyMark is SO_MARK of Envoy's upstream sockets in mode Rootless.
	DefaultProxyMark = 0x4d65
	// First and last port that belong to the sidecar itself: connections
	// from other machines to them are not redirected.
	firstSidecarPort, lastSidecarPort = 15000, 15099
)

// String returns the name that --capture takes.
func (m Mode) String() string {
	switch m {
	case Explicit:
		return "explicit"
	case Rootless:
		return "rootless"
	case Transparent:
		return "transparent"
	case Pod:
		return "pod"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// ParseMode is the inverse of String, but for Pod, which is nobody's choice.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{Explicit, Rootless, Transparent} {
		if s == m.String() {
			return m, nil
		}
	}
	return Explicit, fmt.Errorf("capture mode %q: want transparent, rootless or explicit", s)
}

// InRootless says whether this process is already inside a user namespace
// as EnterRootless makes it: root there, and DefaultProxyUID not mapped.
func InRootless() bool {
	return os.Geteuid() == 0 && !uidMapped(DefaultProxyUID)
}

// uidMapped says whether uid exists in this process's user namespace.
func uidMapped(uid uint32) bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return true // no user namespaces in this kernel
	}
	for _, m := range parseIDMap(string(text)) {
		if uint64(uid) >= uint64(m.inside) && uint64(uid) < uint64(m.inside)+uint64(m.size) {
			return true
		}
	}
	return false
}

// outerUID returns the uid of the parent user namespace that this process's
// uid 0 stands for: in Rootless, the user who started heddle.
func outerUID() uint32 {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return 0
	}
	for _, m := range parseIDMap(string(text)) {
		if m.inside == 0 {
			return m.outside
		}
	}
	return 0
}

// idRange is one line of /proc/PID/uid_map, see user_namespaces(7).
type idRange struct{ inside, outside, size uint32 }

// parseIDMap reads /proc/PID/uid_map; lines that do not parse are left out.
func parseIDMap(text string) []idRange {
	var out []idRange
	for line := range strings.Lines(text) {
		var r idRange
		if n, err := fmt.Sscan(line, &r.inside, &r.outside, &r.size); n == 3 && err == nil {
			out = append(out, r)
		}
	}
	return out
}

// MachineRoot reports whether we are root of the machine, and not of a user namespace only.
func MachineRoot() bool { return os.Geteuid() == 0 && !InRootless() }
