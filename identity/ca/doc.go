// Package ca is the certificate authority of a trust domain: it keeps the root key on
// disk, an intermediate in memory, and signs X.509-SVIDs for workloads whose identity
// somebody else (identity/attest) has established.
//
// Certificates follow the SPIFFE X509-SVID standard and RFC 5280. Roots are rotated in
// three steps (prepare, activate, retire) between which the bundle holds both, so that
// no workload ever meets a certificate of a root that it does not know yet.
package ca
