// Package agent keeps the X.509-SVID of one workload fresh, on the workload's machine.
//
// The key is made here and never leaves but to the workload's own Envoy (identity/sds)
// and app (identity/workloadapi). The SVID is renewed at half of its life with a new key;
// a copy on disk lets a restarted agent start while the control plane is away. Readers
// take [Agent] as go-spiffe's x509svid.Source and x509bundle.Source.
package agent
