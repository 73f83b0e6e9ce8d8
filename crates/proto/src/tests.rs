use crate::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::FileDescriptorSet;

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap()
}

#[test]
fn every_service_is_described_with_its_imports() {
    let set = descriptors();
    let mut services: Vec<_> =
        set.file.iter().flat_map(|file| &file.service).map(|service| service.name()).collect();
    services.sort_unstable();
    assert_eq!(
        services,
        [
            "FileService",
            "NetworkService",
            "NodeService",
            "PoolService",
            "ProcessService",
            "SandboxService",
            "SecretService",
            "SessionService",
            "TemplateService",
            "UsageService"
        ]
    );
    let names: Vec<_> = set.file.iter().map(|file| file.name()).collect();
    for import in set.file.iter().flat_map(|file| &file.dependency) {
        assert!(names.contains(&import.as_str()), "{import} is imported but not described");
    }
}

#[test]
fn payload_bytes_are_shared_not_copied() {
    let data = bytes::Bytes::from_static(b"output");
    let frame = crate::v1::OutputData { data: data.clone(), ..Default::default() };
    assert_eq!(frame.data.as_ptr(), data.as_ptr());
}
