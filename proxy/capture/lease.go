package capture

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxIdleLeases bounds how many released addresses are remembered for their
// keys, so that churn does not fill the state directory.
const maxIdleLeases = 1024

// ErrInUse says that a living process holds the lease of that key.
var ErrInUse = errors.New("in use")

// Lease is a pair of addresses that only its holder uses until Close, or
// until the holder is gone.
type Lease struct {
	Key string
	V4  netip.Addr
	V6  netip.Addr // not valid when the network has no IPv6

	offset uint32 // of V4 from the start of its prefix
	file   *os.File
}

// MAC is derived from the address: whoever gets an address that was used
// before has the same MAC, and the neighbours' ARP caches stay right.
func (l *Lease) MAC() net.HardwareAddr {
	b := l.V4.As4()
	return net.HardwareAddr{0x02, 0x68, b[0], b[1], b[2], b[3]}
}

// Close gives the addresses back. They are remembered: the same key gets
// them again if nobody needed them meanwhile.
func (l *Lease) Close() error {
	now := time.Now()
	_ = os.Chtimes(l.file.Name(), now, now) // only orders the pruning
	return l.file.Close()
}

// Allocate leases the addresses of key, which names one workload instance:
// the ones it had last time if possible. It fails with ErrInUse while another
// holder of the same key lives.
//
// A lease is a file named by the address's offset and holding the key; it is
// taken while somebody has it locked.
func (n *Network) Allocate(key string) (*Lease, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(n.dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	dir := filepath.Join(n.dir, "leases")
	known, err := readLeases(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range known {
		if e.key != key || !n.usable(e.offset) {
			continue
		}
		file, err := TryLockFile(e.path)
		if errors.Is(err, ErrHeld) {
			return nil, fmt.Errorf("address of %s: %w by process %s", key, ErrInUse, e.pid)
		}
		if err != nil {
			return nil, err
		}
		return n.lease(key, e.offset, file)
	}
	return n.allocateNew(dir, key, known)
}

// allocateNew picks an address for a key that has none: one never given
// out if there is any, else the one idle for longest.
func (n *Network) allocateNew(dir, key string, known []leaseEntry) (*Lease, error) {
	known = pruneLeases(known)
	seen := make(map[uint32]bool, len(known))
	for _, e := range known {
		seen[e.offset] = true
	}
	last := n.lastOffset()
	h := fnv.New32a()
	h.Write([]byte(key))
	// Starting from the key's hash a key tends to get the same address even
	// after the state directory was lost. 0 is the network, 1 the gateway.
	start := h.Sum32() % (last - 1)
	for i := range last - 1 {
		offset := 2 + (start+i)%(last-1)
		if seen[offset] {
			continue
		}
		file, err := TryLockFile(filepath.Join(dir, strconv.FormatUint(uint64(offset), 10)))
		if err != nil {
			return nil, err
		}
		return n.lease(key, offset, file)
	}
	for _, e := range known { // oldest first
		if !n.usable(e.offset) {
			continue
		}
		file, err := TryLockFile(e.path)
		if errors.Is(err, ErrHeld) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return n.lease(key, e.offset, file)
	}
	return nil, fmt.Errorf("no free address in %s for %s", n.cfg.PrefixV4, key)
}

// lease writes who holds the locked file and returns its addresses.
func (n *Network) lease(key string, offset uint32, file *os.File) (*Lease, error) {
	text := fmt.Sprintf("%s\n%d\n", key, os.Getpid())
	if err := file.Truncate(0); err != nil {
		file.Close()
		return nil, fmt.Errorf("write lease: %w", err)
	}
	if _, err := file.WriteAt([]byte(text), 0); err != nil {
		file.Close()
		return nil, fmt.Errorf("write lease: %w", err)
	}
	l := &Lease{Key: key, V4: addrAt(n.cfg.PrefixV4, offset), offset: offset, file: file}
	if n.IPv6() {
		l.V6 = addrAt(n.cfg.PrefixV6, offset)
	}
	return l, nil
}

// lastOffset is the highest usable offset: the broadcast address comes after
// it. Prefixes wider than /16 are used to their first 65,534 addresses.
func (n *Network) lastOffset() uint32 {
	return 1<<min(16, 32-n.cfg.PrefixV4.Bits()) - 2
}

func (n *Network) usable(offset uint32) bool { return offset >= 2 && offset <= n.lastOffset() }

// addrAt adds offset to the first address of prefix.
func addrAt(prefix netip.Prefix, offset uint32) netip.Addr {
	b := prefix.Masked().Addr().AsSlice()
	tail := b[len(b)-4:]
	binary.BigEndian.PutUint32(tail, binary.BigEndian.Uint32(tail)+offset)
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

type leaseEntry struct {
	path   string
	offset uint32
	key    string
	pid    string
	used   time.Time
}

// readLeases lists dir, the one used longest ago first. Files that are not
// leases are ignored.
func readLeases(dir string) ([]leaseEntry, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	var out []leaseEntry
	for _, f := range files {
		offset, err := strconv.ParseUint(f.Name(), 10, 16)
		if err != nil {
			continue
		}
		e := leaseEntry{path: filepath.Join(dir, f.Name()), offset: uint32(offset)}
		if info, err := f.Info(); err == nil && info.Size() < 1024 {
			e.used = info.ModTime()
			text, _ := os.ReadFile(e.path)
			e.key, e.pid, _ = strings.Cut(strings.TrimSpace(string(text)), "\n")
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b leaseEntry) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.offset, b.offset))
	})
	return out, nil
}

// pruneLeases forgets the oldest idle leases beyond maxIdleLeases and
// returns the rest. The caller holds the directory's lock.
func pruneLeases(known []leaseEntry) []leaseEntry {
	excess := len(known) - maxIdleLeases
	return slices.DeleteFunc(known, func(e leaseEntry) bool {
		if excess <= 0 {
			return false
		}
		file, err := TryLockFile(e.path)
		if err != nil {
			return false // held: in use
		}
		defer file.Close()
		if os.Remove(e.path) != nil {
			return false
		}
		excess--
		return true
	})
}

// checkKey refuses what could not be one line of a lease file.
func checkKey(key string) error {
	if key == "" || len(key) > 253 {
		return fmt.Errorf("workload name %q: want 1 to 253 characters", key)
	}
	for _, r := range key {
		if r < '!' || r > '~' {
			return fmt.Errorf("workload name %q: %q is not allowed in it", key, r)
		}
	}
	return nil
}
