-- For Orthanc ("LuaScripts" and, in "DicomModalities", "legradnet": ["LEGRADNET", "127.0.0.1", 11112]):
-- each film that comes by DICOM goes to the node, and what comes from the node stays.
function OnStoredInstance(instance, tags, metadata, origin)
  local is_film = tags['Modality'] == 'CR' or tags['Modality'] == 'DX'
  if is_film and origin['RequestOrigin'] == 'DicomProtocol' and origin['RemoteAet'] ~= 'LEGRADNET' then
    SendToModality(instance, 'legradnet')
  end
end
