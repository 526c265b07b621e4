package state

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// keepAddress is how long a deleted service keeps its addresses: longer than any DNS
// cache or open connection that still knows them is likely to live.
const keepAddress = time.Hour

// maxProbes bounds the search for a free address in a prefix too large to fill.
const maxProbes = 1 << 16

// Config is where virtual addresses are taken from. The zero prefix gives none of its
// family.
type Config struct {
	VirtualV4, VirtualV6 netip.Prefix
}

// DefaultConfig has the prefixes that heddle uses unless told otherwise: a part of
// RFC 6598's shared space, and a unique local prefix.
func DefaultConfig() Config {
	return Config{netip.MustParsePrefix("100.96.0.0/16"), netip.MustParsePrefix("fd68:6564:646c:2::/64")}
}

func (c Config) validate() error {
	if c.VirtualV4.IsValid() && (!c.VirtualV4.Addr().Is4() || c.VirtualV4.Bits() > 30) {
		return fmt.Errorf("virtual IPv4 prefix %s: give an IPv4 prefix of at most 30 bits", c.VirtualV4)
	}
	if c.VirtualV6.IsValid() && (!c.VirtualV6.Addr().Is6() || c.VirtualV6.Bits() > 120) {
		return fmt.Errorf("virtual IPv6 prefix %s: give an IPv6 prefix of at most 120 bits", c.VirtualV6)
	}
	return nil
}

// lease is the addresses of one service, as stored.
type lease struct {
	V4       netip.Addr `json:"v4"`
	V6       netip.Addr `json:"v6"`
	Released int64      `json:"released,omitempty"` // Unix seconds; 0 = in use
}

func (l lease) list() []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{l.V4, l.V6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// addressPlan is the address bucket in memory.
type addressPlan struct {
	config Config
	leases map[mesh.Name]lease
	taken  map[netip.Addr]mesh.Name
	lapse  []mesh.Name // lapsed leases that are on disk still
}

func (db *DB) loadAddresses(tx *bolt.Tx, c Config) error {
	db.addresses = addressPlan{config: c, leases: make(map[mesh.Name]lease), taken: make(map[netip.Addr]mesh.Name)}
	return tx.Bucket(addressBucket).ForEach(func(k, v []byte) error {
		ref, err := refOf(k)
		if err != nil {
			return err
		}
		var l lease
		if err := json.Unmarshal(v, &l); err != nil {
			return fmt.Errorf("read addresses of %s: %w", ref, err)
		}
		// Prefixes may have been configured anew since.
		if !inside(c.VirtualV4, l.V4) || !inside(c.VirtualV6, l.V6) {
			return nil
		}
		db.addresses.add(ref.Name, l)
		return nil
	})
}

func inside(p netip.Prefix, a netip.Addr) bool {
	return p.IsValid() == a.IsValid() && (!p.IsValid() || p.Contains(a))
}

func (p *addressPlan) add(n mesh.Name, l lease) {
	p.leases[n] = l
	for _, a := range l.list() {
		p.taken[a] = n
	}
}

// AssignVirtualIPs gives every service that is not headless its addresses, the same as
// ever before. New ones are on disk when it returns.
func (db *DB) AssignVirtualIPs(services ...*mesh.Service) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	changed := make(map[mesh.Name]lease)
	for _, svc := range services {
		if svc.Headless {
			continue
		}
		l, ok := db.addresses.leases[svc.Name]
		if !ok {
			var err error
			if l, err = db.addresses.choose(svc.Name, db.now()); err != nil {
				// Those before it stay, in memory and on disk.
				return errors.Join(fmt.Errorf("virtual address of %s: %w", svc.Ref, err), db.storeLeases(changed))
			}
		}
		if !ok || l.Released != 0 {
			l.Released = 0
			changed[svc.Name] = l
			db.addresses.add(svc.Name, l)
		}
		svc.VirtualIPs = l.list()
	}
	return db.storeLeases(changed)
}

// ReleaseVirtualIPs lets the addresses of deleted services go, after a while.
func (db *DB) ReleaseVirtualIPs(services ...mesh.Name) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	changed := make(map[mesh.Name]lease)
	for _, name := range services {
		if l, ok := db.addresses.leases[name]; ok && l.Released == 0 {
			l.Released = db.now().Unix()
			changed[name] = l
			db.addresses.leases[name] = l
		}
	}
	return db.storeLeases(changed)
}

// storeLeases writes what changed; the caller holds mu. Where the disk refuses, memory
// goes back to what is on disk.
func (db *DB) storeLeases(changed map[mesh.Name]lease) error {
	if len(changed) == 0 {
		return nil
	}
	err := db.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(addressBucket)
		for _, name := range db.addresses.lapse {
			if err := b.Delete(leaseKey(name)); err != nil {
				return err
			}
		}
		for name, l := range changed {
			value, err := json.Marshal(l)
			if err != nil {
				return err
			}
			if err := b.Put(leaseKey(name), value); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		db.addresses.lapse = nil
		return nil
	}
	again := db.bolt.View(func(tx *bolt.Tx) error { return db.loadAddresses(tx, db.addresses.config) })
	return errors.Join(fmt.Errorf("store virtual addresses: %w", err), again)
}

func leaseKey(n mesh.Name) []byte { return key(mesh.Ref{Kind: mesh.KindService, Name: n}) }

// choose finds addresses by the hash of the name, and by trying the next where one is
// taken, so that the same services have the same addresses on every machine as a rule.
func (p *addressPlan) choose(n mesh.Name, now time.Time) (lease, error) {
	var l lease
	var err error
	if p.config.VirtualV4.IsValid() {
		if l.V4, err = p.probe(p.config.VirtualV4, n, now); err != nil {
			return l, err
		}
	}
	if p.config.VirtualV6.IsValid() {
		l.V6, err = p.probe(p.config.VirtualV6, n, now)
	}
	return l, err
}

func (p *addressPlan) probe(prefix netip.Prefix, n mesh.Name, now time.Time) (netip.Addr, error) {
	sum := sha256.Sum256([]byte(n.String()))
	hostBits := min(prefix.Addr().BitLen()-prefix.Bits(), 62)
	usable := uint64(1)<<hostBits - 2 // without the first and the last
	start := binary.BigEndian.Uint64(sum[:8]) % usable
	for i := range min(usable, maxProbes) {
		a := hostAddress(prefix, 1+(start+i)%usable)
		owner, taken := p.taken[a]
		if !taken || p.lapsed(owner, now) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address of %s is free; give the control plane a larger prefix", prefix)
}

// lapsed reports whether the owner's addresses may go to another, and then forgets it.
func (p *addressPlan) lapsed(owner mesh.Name, now time.Time) bool {
	l := p.leases[owner]
	if l.Released == 0 || now.Sub(time.Unix(l.Released, 0)) < keepAddress {
		return false
	}
	delete(p.leases, owner)
	for _, a := range l.list() {
		delete(p.taken, a)
	}
	p.lapse = append(p.lapse, owner)
	return true
}

// hostAddress is the prefix's n-th address.
func hostAddress(prefix netip.Prefix, n uint64) netip.Addr {
	raw := prefix.Masked().Addr().As16()
	low := binary.BigEndian.Uint64(raw[8:])
	binary.BigEndian.PutUint64(raw[8:], low|n)
	a := netip.AddrFrom16(raw)
	if prefix.Addr().Is4() {
		return a.Unmap()
	}
	return a
}
