// Package xdstest has what tests of configuration need: a simulated delta ADS client,
// and a real Envoy to run against a server. It is used by tests only.
package xdstest
