package main

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/proxy/capture"
)

// captureFlags are the flags of "heddle capture apply" as they are written.
type captureFlags struct {
	inPorts, outPorts, outCIDRs, inCIDRs []string
}

func captureCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "capture",
		Short: "Send this network namespace's traffic through its Envoy",
		Long: `Loads the rules by which a pod's traffic goes through its sidecar into the network
namespace that it runs in. It needs CAP_NET_ADMIN there and nothing else: no other program
and no writable file system. 'heddle up' and 'heddle sidecar' do this by themselves.`,
	}
	c.AddCommand(captureApplyCommand(e), captureShowCommand(e), captureRemoveCommand())
	return c
}

func captureApplyCommand(e *env) *cobra.Command {
	var f captureFlags
	c := &cobra.Command{
		Use:   "apply [flags]",
		Short: "Load the rules, in place of those of an earlier run",
		Long: `Sends outgoing TCP to port 15001, incoming TCP to port 15006 and DNS to port 15053 of
this network namespace. Left alone are what uid 1337 sends (the sidecar), loopback, and the
incoming ports 15000 to 15099. The rules are replaced in one step.`,
		Example: `  heddle capture apply --exclude-inbound-ports 9090 --exclude-outbound-cidrs 169.254.169.254/32`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			rules, err := f.rules()
			if err != nil {
				return &exitError{exitUsage, err}
			}
			if err := rules.Apply(c.Context(), ""); err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.stdout, "captured: outgoing TCP to port %d, incoming to %d, DNS to %d\n",
				rules.OutboundPort, rules.InboundPort, rules.DNSPort)
			return err
		},
	}
	fs := c.Flags()
	fs.StringSliceVar(&f.inPorts, "exclude-inbound-ports", nil, "ports whose callers reach the application directly, without the mesh")
	fs.StringSliceVar(&f.outPorts, "exclude-outbound-ports", nil, "ports that the application calls directly")
	fs.StringSliceVar(&f.outCIDRs, "exclude-outbound-cidrs", nil, "addresses that the application calls directly, such as 10.1.0.0/16")
	fs.StringSliceVar(&f.inCIDRs, "exclude-inbound-cidrs", nil, "addresses whose calls reach the application directly")
	return c
}

func captureShowCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Say whether the rules are there; exit code 1 if not",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			there, err := capture.Applied("")
			switch {
			case err != nil:
				return err
			case !there:
				fmt.Fprintln(e.stdout, "not captured")
				return &exitError{code: exitFailure}
			}
			fmt.Fprintln(e.stdout, "captured")
			return nil
		},
	}
}

func captureRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove",
		Short: "Take the rules away",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return capture.RemoveRules("") },
	}
}

// rules makes a pod's rules of the flags.
func (f captureFlags) rules() (capture.Rules, error) {
	r := capture.PodRules()
	for _, list := range []struct {
		flag string
		from []string
		into *[]uint16
	}{
		{"--exclude-inbound-ports", f.inPorts, &r.ExcludeInPorts},
		{"--exclude-outbound-ports", f.outPorts, &r.ExcludeOutPorts},
	} {
		for _, s := range list.from {
			n, err := strconv.ParseUint(s, 10, 16)
			if err != nil || n == 0 {
				return r, fmt.Errorf("%s: %q is not a port from 1 to 65535", list.flag, s)
			}
			*list.into = append(*list.into, uint16(n))
		}
	}
	for _, list := range []struct {
		flag string
		from []string
		into *[]netip.Prefix
	}{
		{"--exclude-outbound-cidrs", f.outCIDRs, &r.ExcludeOutCIDRs},
		{"--exclude-inbound-cidrs", f.inCIDRs, &r.ExcludeInCIDRs},
	} {
		for _, s := range list.from {
			p, err := netip.ParsePrefix(s)
			if err != nil || p.Addr().Is4In6() {
				return r, fmt.Errorf("%s: %q is not a range of addresses, such as 10.1.0.0/16 or fd00::/64", list.flag, s)
			}
			*list.into = append(*list.into, p)
		}
	}
	return r, nil
}
