package capture

import (
	"fmt"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// masquerade gives what workloads send to the outside the machine's address,
// in a table named after the bridge, and nothing else is touched.
//
// net.ipv4.ip_forward is turned on if it was off, and stays on when the
// network goes, as Docker, Podman and libvirt leave it: turning it off could
// cut off whoever started after us. IPv6 forwarding is never turned on: a
// machine that forwards stops listening to router advertisements and may lose
// its own connectivity. If it is on already, IPv6 is masqueraded too.
//
// A firewall that drops forwarded packets (Docker sets such a policy) still
// drops these: in nftables an accept in one table cannot overrule a drop in
// another. The same goes for traffic between workloads when br_netfilter is
// loaded and net.bridge.bridge-nf-call-iptables is 1.
func (n *Network) masquerade() error {
	const forward = "/proc/sys/net/ipv4/ip_forward"
	if v, err := os.ReadFile(forward); err != nil || strings.TrimSpace(string(v)) != "1" {
		if err := writeSysctl("net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
		n.cfg.Log.Info("turned on IPv4 forwarding, so that workloads reach the outside", "sysctl", "net.ipv4.ip_forward")
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := replaceTable(c, nftables.TableFamilyINet, n.cfg.Bridge)
	chain := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	prefixes := []rule{fromPrefix(n.cfg.PrefixV4)}
	if n.ipv6 {
		prefixes = append(prefixes, fromPrefix(n.cfg.PrefixV6))
	}
	for _, from := range prefixes {
		outside := interfaceName(expr.MetaKeyOIFNAME, expr.CmpOpNeq, n.cfg.Bridge)
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(from, outside, rule{&expr.Masq{}})})
	}
	return flush(c)
}

func (n *Network) removeMasquerade() error {
	if n.cfg.Mode != Transparent {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	return deleteTable(c, nftables.TableFamilyINet, n.cfg.Bridge)
}

// replaceTable begins a transaction that ends with only what is added to the
// table from here: the first AddTable makes the removal succeed when there
// was none. Nobody ever sees the table empty.
func replaceTable(c *nftables.Conn, family nftables.TableFamily, name string) *nftables.Table {
	table := &nftables.Table{Name: name, Family: family}
	c.AddTable(table)
	c.DelTable(table)
	return c.AddTable(table)
}

func deleteTable(c *nftables.Conn, family nftables.TableFamily, name string) error {
	table := &nftables.Table{Name: name, Family: family}
	c.AddTable(table) // so that it is no error if it was not there
	c.DelTable(table)
	return flush(c)
}

func flush(c *nftables.Conn) error {
	if err := c.Flush(); err != nil {
		if strings.Contains(err.Error(), unix.ENOENT.Error()) {
			return fmt.Errorf("load nftables rules (does this kernel have nf_tables, nft_nat and nft_redir?): %w", err)
		}
		return fmt.Errorf("load nftables rules: %w", err)
	}
	return nil
}
