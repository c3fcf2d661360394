//! Generates the protocol from ../../proto; src/protocol.rs takes it in.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../proto";
    println!("cargo::rerun-if-changed={proto}");
    let files = ["apache/rocketmq/v2/service.proto", "kourou/admin/v1/admin.proto"];
    let descriptors = protox::compile(files, [proto])?;
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("protocol.rs") // all packages as modules in one another
        .compile_fds(descriptors)?;
    Ok(())
}
