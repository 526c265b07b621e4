// Package shop is Heddle's example: a frontend (nginx), a REST API in two versions, a
// database of documents (PostgreSQL) and a load generator. heddle.yaml puts them together
// for "heddle up"; the programs are in the folders beside it. Here is only the test that
// runs them without a mesh.
package shop
